"""Makes the controller that a spec asks for: new, from a checkpoint, or where a run was left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sentinel import controller_spec
from sentinel.controller.experience import Experience
from sentinel.controller.learned import LearnedController, LearnedState
from sentinel.controller.memory import Memory
from sentinel.controller.protocol import Controller
from sentinel.controller.rule import RuleController
from sentinel.controller.saved import load_experience
from sentinel.errors import CheckpointInvalid


def start(section: controller_spec.Controller, *, seed: int, grow: float, model_folder: Path) -> Controller:
    """The controller of a run that begins.

    Args:
        section: What the spec says.
        seed: Of what is drawn.
        grow: Share of the dense model's groups that a cycle may grow; 0 where the spec grows nothing.
        model_folder: Where the model was loaded from.

    Raises:
        ControllerStateInvalid: The spec goes on from the model's folder, and what is there cannot be used.
    """
    if section.kind == "rule":
        return RuleController(Memory(), grow=grow)
    known = load_experience(model_folder) if section.state else Experience.none()
    return LearnedController(LearnedState(experience=known), seed=seed, grow=grow, explore=section.explore)


def resume(section: controller_spec.Controller, state: Mapping[str, Any], *, seed: int, grow: float) -> Controller:
    """The controller of a run that goes on; arguments as of `start`, and what its `state()` was.

    Raises:
        CheckpointInvalid: The state is no such controller's.
    """
    try:
        if section.kind == "rule":
            return RuleController(Memory.model_validate(state), grow=grow)
        learned = LearnedState.model_validate(state)
    except ValidationError as error:
        raise CheckpointInvalid(f"The saved state of the {section.kind} controller is damaged: {error}") from error
    return LearnedController(learned, seed=seed, grow=grow, explore=section.explore)

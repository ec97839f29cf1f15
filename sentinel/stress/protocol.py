"""The whole of `evaluate.stress`: every measurement, of the dense and the pruned model alike.

What is learnt is training text, what is measured evaluation text. Both models get the same windows in the same order
and as many steps. Changes neither of them.
"""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from sentinel.inputs import Domain, Inputs, own_evaluation
from sentinel.models.probes import score
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from sentinel.stress.alternation import alternate
from sentinel.stress.damage import damage_and_heal
from sentinel.stress.domains import on_domain
from sentinel.stress_result import (
    AlternationArm,
    AlternationRecord,
    DamageArm,
    DamageRecord,
    DomainRecord,
    ProbeRecord,
    StressResult,
)
from sentinel.stress_spec import IN_DOMAIN, Alternation, Damage, Stress


def stress(
    inputs: Inputs, pruned: PreTrainedModel, section: Stress, *, seed: int, tell: Callable[[str], None]
) -> StressResult:
    """Measure everything that the section asks for.

    Args:
        inputs: The dense model and all texts.
        pruned: What was made of it.
        section: What is asked for.
        seed: Seeds scores and the order of training windows.
        tell: Hears what is measured next.

    Raises:
        SentinelError: As `on_domain`, `score`, `alternate` and `damage_and_heal` say.
    """
    return _Stress(inputs, pruned, section, seed=seed, tell=tell).result()


class _Stress:
    """What the measurements share."""

    def __init__(
        self, inputs: Inputs, pruned: PreTrainedModel, section: Stress, *, seed: int, tell: Callable[[str], None]
    ) -> None:
        self._inputs, self._dense, self._pruned = inputs, inputs.dense, pruned
        self._section, self._seed, self._tell = section, seed, tell
        self._training = torch.cat([inputs.calibration, inputs.held_out, inputs.training])
        self._evaluation = own_evaluation(inputs.evaluation, section)

    def result(self) -> StressResult:
        """All of it, the cheapest first."""
        section = self._section
        return StressResult(
            domains=self._domains(),
            probes=self._probes() if section.probes else [],
            alternation=self._alternation(section.alternation) if section.alternation else None,
            damage=self._damage(section.damage) if section.damage else None,
        )

    def _domains(self) -> list[DomainRecord]:
        self._tell("Stress: loss by domain.")
        texts = {IN_DOMAIN: (self._evaluation, self._inputs.text)}
        texts |= {name: (domain.evaluation, domain.text) for name, domain in self._inputs.domains.items()}
        return [
            on_domain(self._dense, self._pruned, windows, name=name, text=text)
            for name, (windows, text) in texts.items()
        ]

    def _probes(self) -> list[ProbeRecord]:
        self._tell("Stress: repetition, copying and recall.")
        return [
            ProbeRecord(
                probe=probe.name,
                sequences=len(probe.sequences),
                answers=int(probe.answers.sum()),
                dense=score(self._dense, probe),
                pruned=score(self._pruned, probe),
            )
            for probe in self._inputs.probes
        ]

    def _alternation(self, alternation: Alternation) -> AlternationRecord:
        other = self._inputs.domains[self._section.other_domain]
        own = self._own(self._section.alternation_tokens)

        def arm(model: PreTrainedModel, called: str) -> AlternationArm:
            self._tell(f"Stress: the {called} model learns {other.name} and {IN_DOMAIN} in turn.")
            tuner = self._tuner(alternation.steps)
            return alternate(model, own, other, tuner=tuner, rounds=alternation.rounds, seed=self._seed)

        return AlternationRecord(
            other=other.name,
            steps=alternation.steps,
            dense=arm(self._dense, "dense"),
            pruned=arm(self._pruned, "pruned"),
        )

    def _damage(self, damage: Damage) -> DamageRecord:
        own = self._own(self._section.healing_tokens)

        def arm(model: PreTrainedModel, called: str) -> DamageArm:
            self._tell(f"Stress: the {called} model loses {damage.share:.0%} of its attention groups and heals.")
            return damage_and_heal(
                model,
                self._inputs.family,
                own,
                calibration=self._inputs.calibration,
                section=damage,
                tuner=self._tuner(damage.steps),
                seed=self._seed,
            )

        return DamageRecord(
            share=damage.share,
            strategy=damage.strategy,
            dense=arm(self._dense, "dense"),
            pruned=arm(self._pruned, "pruned"),
        )

    def _own(self, tokens: int) -> Domain:
        """With no more training text than can be used, so that no measurement depends on what else is asked for."""
        windows = max(1, tokens // self._training.shape[1])
        return Domain(
            name=IN_DOMAIN,
            training=self._training[:windows],
            evaluation=self._evaluation,
            text=self._inputs.text,
        )

    def _tuner(self, steps: int) -> FineTuner:
        # Of cross-entropy, which asks no dense model.
        return FineTuner(heal=self._section.training(steps), dense=self._dense)

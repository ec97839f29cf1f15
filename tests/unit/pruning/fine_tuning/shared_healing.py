"""A program that processes run together: heals a tiny model and leaves its weights, one file per process."""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_model

from sentinel.heal_spec import Heal
from sentinel.models.families import family_of
from sentinel.models.optimized.surgery import apply_removal
from sentinel.pruning.fine_tuning.fine_tuner import FineTuner
from tests.unit.pruning.fine_tuning.healing import QUICK, Recorder
from tests.unit.pruning.tiny import CUT, tiny_llama

WITHOUT_ATTENTION = {"attention": {1: range(4)}}
VARIANTS = {"full": {}, "lora": {"method": "lora"}, "emptied": {"removal": WITHOUT_ATTENTION}}


def heal(accelerator, *, removal=CUT, **settings):
    """The healed model and what was heard; the recorder also counts the windows that this process learnt from."""
    model, dense = tiny_llama(), tiny_llama()
    apply_removal(model, family_of("llama"), removal)
    windows = torch.randint(0, 61, (15, 24), generator=torch.Generator().manual_seed(1))
    recorder = Recorder(lambda _: None)
    recorder.learnt_from = 0

    def count(_module, _arguments, keywords):
        recorder.learnt_from += len(keywords["input_ids"]) if torch.is_grad_enabled() else 0

    model.register_forward_pre_hook(count, with_kwargs=True)
    tuner = FineTuner(heal=Heal(**{**QUICK, "batch_tokens": 5 * 24, **settings}), dense=dense, accelerator=accelerator)
    tuner.fine_tune(model, windows[:12], held_out=windows[12:], seed=1, observer=recorder)
    return model, recorder


if __name__ == "__main__":
    accelerator = Accelerator(cpu=True)
    for name, variant in VARIANTS.items():
        model, recorder = heal(accelerator, **variant, micro_batch_tokens=24, evaluate_every=4)
        save_model(model, Path(sys.argv[1]) / f"{name}-{accelerator.process_index}.safetensors")
        (Path(sys.argv[1]) / f"{name}-{accelerator.process_index}.txt").write_text(
            str([recorder.learnt_from, *recorder.losses.values()])
        )
    accelerator.end_training()

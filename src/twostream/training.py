"""Training that can be killed, resumed and repeated: the one way in which S and the streams are fitted.

Knows torch, Lightning and checkpoints; must not know tasks, volumes or rounds. The laws it keeps: sample t is a
function of (seed, t) alone; a checkpoint is written whole or not at all; a run that was killed and called again
takes up the last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from twostream import progress

STEPS_PER_CHECKPOINT = 25
"""What a kill can cost: at laptop sizes some ten seconds."""
WARMUP_SHARE = 0.1

Sample = Callable[[int], Any]


class _Samples(Dataset[Any]):
    """Samples first..last of an endless, seeded sequence."""

    def __init__(self, sample: Sample, first: int, last: int) -> None:
        self._sample, self._range = sample, range(first, last)

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int) -> Any:
        return self._sample(self._range[index])


class FitModule(lightning.LightningModule):
    """A network with its loss, fitted by ``fit``. Subclasses say what one step costs.

    Args:
        network: what is trained.
        learning_rate: peak of a linear warm-up and cosine decay.
    """

    def __init__(self, network: torch.nn.Module, learning_rate: float) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.losses: list[float] = []

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        """Scalar loss of one batch; any randomness comes from ``generator``, seeded by the step."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.global_step)
        loss = self.loss(batch, generator)
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.learning_rate)
        total = max(int(self.trainer.max_steps), 1)
        warmup = max(1, round(WARMUP_SHARE * total))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["losses"] = self.losses

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.losses = list(checkpoint["losses"])


class _SaveAndShow(lightning.Callback):
    """Checkpoint at the end of each stretch of steps; progress after each step."""

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        self._path, self._advance = path, advance
        self._shown = 0

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._advance(trainer.global_step - self._shown)
        self._shown = trainer.global_step

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        whole = self._path.with_suffix(".writing")
        trainer.save_checkpoint(whole)
        os.replace(whole, self._path)


def fit(
    module: FitModule,
    sample: Sample,
    *,
    num_steps: int,
    batch_size: int,
    resume_path: Path,
    description: str,
) -> list[float]:
    """Train ``module`` in place for ``num_steps`` steps.

    Args:
        module: network and loss.
        sample: t -> sample t, a function of t alone; batches are made by torch's default collation.
        num_steps: optimizer steps in total, those before a kill included.
        batch_size: samples per step; step s sees samples s*batch_size .. (s+1)*batch_size-1.
        resume_path: where the state is kept until the caller has stored the result; taken up if it exists.
        description: shown beside the progress.

    Returns:
        The loss of every step.
    """
    if num_steps == 0:
        return []
    stretch = min(STEPS_PER_CHECKPOINT, num_steps)
    resume = _usable(resume_path, module)

    with _quiet(), progress.task(description, total=num_steps) as advance:
        trainer = lightning.Trainer(
            max_steps=num_steps,
            max_epochs=-1,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[_SaveAndShow(resume_path, advance)],
            gradient_clip_val=1.0,
        )

        class _Stretches(lightning.LightningDataModule):
            """One stretch of steps per epoch, so that every epoch's end is a clean place to take up again."""

            def train_dataloader(self) -> DataLoader[Any]:
                first = trainer.global_step * batch_size
                last = min(first + stretch * batch_size, num_steps * batch_size)
                return DataLoader(_Samples(sample, first, last), batch_size=batch_size, shuffle=False)

        module.train()
        trainer.fit(module, datamodule=_Stretches(), ckpt_path=str(resume) if resume else None, weights_only=False)
    module.cpu().eval()
    return module.losses


def _usable(path: Path, module: FitModule) -> Path | None:
    """The checkpoint to take up: none, if there is none or it was made with other settings."""
    path.with_suffix(".writing").unlink(missing_ok=True)
    if not path.exists():
        return None
    wanted = {name: value.shape for name, value in module.state_dict().items()}
    try:
        stored = torch.load(path, weights_only=False)["state_dict"]
        fits = {name: value.shape for name, value in stored.items()} == wanted
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError):
        fits = False
    if not fits:
        progress.say(f"  the half-trained state in {path} is damaged or of other settings: training begins anew")
        path.unlink()
    return path if fits else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice about loggers, workers and sanity checks is about choices that are made here on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*num_workers.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def use_threads(num_threads: int) -> None:
    """Fix the number of threads and the algorithms: sums in another order give other weights."""
    torch.set_num_threads(num_threads)
    # On a CPU everything here is exact; on CUDA the interpolation has no exact gradient, which is no reason to stop.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())


def save_whole(state: dict[str, Any], path: Path) -> None:
    """``torch.save`` that leaves either the old file or the whole new one."""
    partial = path.with_suffix(".writing")
    torch.save(state, partial)
    os.replace(partial, path)

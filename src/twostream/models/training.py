"""Training that can be killed, resumed and repeated: the one way in which S and the streams are fitted.

Knows torch, Lightning and checkpoints; must not know tasks, volumes or rounds. The laws it keeps: sample t is a
function of (seed, t) alone; a checkpoint is written whole or not at all; a run that was killed and called again
takes up the last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import copy
import ctypes
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
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, Dataset

from twostream.base import progress
from twostream.base.errors import TrainingError

STEPS_PER_CHECKPOINT = 25
"""What a kill can cost: at laptop sizes some ten seconds."""
DAMAGED = (RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError, pickle.UnpicklingError)
"""What loading a file raises that is no checkpoint, or not a whole one."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of <malloc.h>."""
KEPT_BYTES = 2**30
"""Freed memory up to this size is kept for the next tensor."""
WARMUP_SHARE = 0.1
SGD_MOMENTUM = 0.9

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
    """A network with its loss, fitted by ``fit``. Subclasses say what one step costs, and may look at themselves.

    Args:
        network: what is trained.
        learning_rate: peak of a linear warm-up and cosine decay.
        optimizer: "adamw" or "sgd".
        weight_decay: of the optimizer.
        warmup_steps: None is a tenth of all steps.
        look_every: steps between two calls of ``look``; 0 never looks.
        patience: looks without a better loss after which training stops; None never.

    Attributes:
        losses: of every step.
        looks: (step, loss) of every look.
        best: the weights of the best look and its loss, or None before the first.
        fingerprint: all settings that the weights depend on; a half-trained state with another one is not resumed.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        learning_rate: float,
        *,
        optimizer: str = "adamw",
        weight_decay: float = 0.01,
        warmup_steps: int | None = None,
        look_every: int = 0,
        patience: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.learning_rate, self.optimizer_name, self.weight_decay = learning_rate, optimizer, weight_decay
        self.warmup_steps, self.look_every, self.patience = warmup_steps, look_every, patience
        self.fingerprint: dict[str, Any] = {}
        self.losses: list[float] = []
        self.looks: list[tuple[int, float]] = []
        self.best: dict[str, Any] | None = None

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        """Scalar loss of one batch; any randomness comes from ``generator``, seeded by the step."""
        raise NotImplementedError

    def look(self) -> float:
        """Loss on what is never trained on; called with the network in evaluation mode and no gradient."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.global_step)
        loss = self.loss(batch, generator)
        if not torch.isfinite(loss.detach()):
            raise TrainingError(
                f"the loss is {float(loss.detach())} in step {self.global_step}: training has run away. "
                f"Lower the learning rate (it is {self.learning_rate:g})."
            )
        self.losses.append(float(loss.detach()))
        if self.logger:
            self.log("loss", loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        """An epoch is the stretch between two looks (or checkpoints)."""
        if not self.look_every:
            return
        if self.global_step % self.look_every and self.global_step < self.trainer.max_steps:
            return
        self.network.eval()
        with torch.no_grad():
            loss = self.look()
        self.network.train()
        self.looks.append((self.global_step, loss))
        if self.logger:
            self.log("validation loss", loss)
        if self.best is None or loss < self.best["loss"]:
            weights = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
            self.best = {"loss": loss, "step": self.global_step, "weights": weights}
        if self.has_stopped:
            self.trainer.should_stop = True

    @property
    def has_stopped(self) -> bool:
        """Whether looks have not got better for so long that training is over."""
        if self.patience is None or self.best is None:
            return False
        return sum(step > self.best["step"] for step, _ in self.looks) >= self.patience

    def configure_optimizers(self) -> Any:
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer
        if self.optimizer_name == "sgd":
            optimizer = torch.optim.SGD(
                parameters, lr=self.learning_rate, momentum=SGD_MOMENTUM, weight_decay=self.weight_decay
            )
        else:
            optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        total = max(int(self.trainer.max_steps), 1)
        warmup = max(1, round(WARMUP_SHARE * total) if self.warmup_steps is None else min(self.warmup_steps, total))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["losses"], checkpoint["looks"], checkpoint["best"] = self.losses, self.looks, self.best
        checkpoint["fingerprint"] = self.fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.losses, self.looks = list(checkpoint["losses"]), list(checkpoint.get("looks", []))
        self.best = checkpoint.get("best")


class _SaveAndShow(Checkpoint):
    """Checkpoint at the end of each stretch of steps; progress after each step.

    A ``Checkpoint``, because Lightning calls those last: what a look has found belongs in the file.
    """

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        self._path, self._advance = path, advance
        self._shown = 0

    def __getstate__(self) -> dict[str, Any]:
        """What travels to the processes of several GPUs: all but the terminal."""
        return vars(self) | {"_advance": _unseen}

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._advance(trainer.global_step - self._shown)
        self._shown = trainer.global_step

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        whole = self._path.with_suffix(".writing")
        trainer.save_checkpoint(whole)
        if trainer.is_global_zero:
            os.replace(whole, self._path)


def _unseen(steps: int) -> None:
    """Progress of a process that has no terminal."""


def _accelerator(devices: int) -> tuple[str, int]:
    """What to train on, and on how many: the GPUs that are there, or the one CPU."""
    return ("cuda", min(devices, torch.cuda.device_count())) if torch.cuda.is_available() else ("cpu", 1)


def _precision(wanted: str, accelerator: str) -> str:
    """As Lightning has it: CPUs know bfloat16, some of them in their convolutions, but no scaled half precision."""
    return "32-true" if wanted == "32" or (wanted == "16-mixed" and accelerator == "cpu") else wanted


def fit(
    module: FitModule,
    sample: Sample,
    *,
    num_steps: int,
    batch_size: int,
    resume_path: Path,
    description: str,
    precision: str = "32",
    devices: int = 1,
    tensorboard_dir: Path | None = None,
) -> list[float]:
    """Train ``module`` in place for ``num_steps`` steps, or until it stops by itself.

    Args:
        module: network and loss.
        sample: t -> sample t, a function of t alone; batches are made by torch's default collation.
        num_steps: optimizer steps in total, those before a kill included.
        batch_size: samples per step and device; step s sees the samples from s * batch_size * devices on.
        resume_path: where the state is kept until the caller has stored the result; taken up if it exists.
        description: shown beside the progress.
        precision: "32", "16-mixed" or "bf16-mixed"; on a CPU "16-mixed" is "32".
        devices: GPUs; more than one run as processes that pickle ``module`` and ``sample``. A CPU counts as one.
        tensorboard_dir: where curves and panels are written; None writes none.

    Returns:
        The loss of every step.
    """
    if num_steps == 0:
        return []
    module.fingerprint |= {
        "num_steps": num_steps, "batch_size": batch_size, "learning_rate": module.learning_rate,
        "optimizer": module.optimizer_name, "weight_decay": module.weight_decay, "warmup_steps": module.warmup_steps,
        "look_every": module.look_every, "patience": module.patience, "precision": precision, "devices": devices,
        "num_threads": torch.get_num_threads(),
    }  # fmt: skip
    resume = _usable(resume_path, module)
    if resume:
        stored = torch.load(resume, weights_only=False)
        module.on_load_checkpoint(stored)
        if module.has_stopped:  # killed between its early stop and the storing of the result
            module.load_state_dict(stored["state_dict"])
            module.cpu().eval()
            return module.losses
    accelerator, devices = _accelerator(devices)
    with _quiet(), progress.task(description, total=num_steps) as advance:
        trainer = lightning.Trainer(
            max_steps=num_steps,
            max_epochs=-1,
            accelerator=accelerator,
            devices=devices,
            strategy="ddp_spawn" if devices > 1 else "auto",
            precision=_precision(precision, accelerator),
            logger=TensorBoardLogger(tensorboard_dir.parent, name=tensorboard_dir.name) if tensorboard_dir else False,
            log_every_n_steps=1,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[_SaveAndShow(resume_path, advance)],
            gradient_clip_val=1.0,
        )
        data = _Stretches(sample, module.look_every, batch_size * devices, batch_size, num_steps)
        module.train()
        trainer.fit(module, datamodule=data, ckpt_path=str(resume) if resume else None, weights_only=False)
    if devices > 1:  # what the first process learned beside the weights came to rest in the checkpoint
        module.on_load_checkpoint(torch.load(resume_path, weights_only=False))
    module.cpu().eval()
    return module.losses


class _Stretches(lightning.LightningDataModule):
    """One stretch of steps per epoch, so that every epoch's end is a clean place to take up again.

    A stretch ends with the next multiple of ``STEPS_PER_CHECKPOINT`` or of ``look_every``, whichever comes first.
    """

    def __init__(self, sample: Sample, look_every: int, samples_per_step: int, batch_size: int, num_steps: int) -> None:
        super().__init__()
        self._sample, self._look_every, self._num_steps = sample, look_every, num_steps
        self._samples_per_step, self._batch_size = samples_per_step, batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        # Not the epoch: after a resume it is not yet restored when the first loader is made.
        first = self.trainer.global_step
        ends = [every - first % every for every in (STEPS_PER_CHECKPOINT, self._look_every) if every]
        last = min(first + min(ends), self._num_steps)
        samples = _Samples(self._sample, first * self._samples_per_step, last * self._samples_per_step)
        return DataLoader(samples, batch_size=self._batch_size, shuffle=False)


def best_of(module: FitModule) -> dict[str, torch.Tensor]:
    """Weights of the best look, or the last ones where nobody looked."""
    return module.best["weights"] if module.best else copy.deepcopy(module.network.state_dict())


def _usable(path: Path, module: FitModule) -> Path | None:
    """The checkpoint to take up: none, if there is none or it was made with other settings."""
    path.with_suffix(".writing").unlink(missing_ok=True)
    if not path.exists():
        return None
    wanted = {name: value.shape for name, value in module.state_dict().items()}
    try:
        stored = torch.load(path, weights_only=False)
        fits = {name: value.shape for name, value in stored["state_dict"].items()} == wanted
        fits = fits and stored["fingerprint"] == module.fingerprint
    except (*DAMAGED, OSError):
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
    _keep_freed_memory()
    # Filling fresh memory with NaN finds code that reads what nobody wrote; it costs a tenth of every training step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _keep_freed_memory() -> None:
    """Let the C library keep what is freed, where it is glibc: by default every large tensor is fresh memory from the
    system, page by page, which takes a third of a forward pass on a CPU (LOG.md)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return
    mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def save_whole(state: dict[str, Any], path: Path) -> None:
    """``torch.save`` that leaves either the old file or the whole new one."""
    partial = path.with_suffix(".writing")
    torch.save(state, partial)
    os.replace(partial, path)

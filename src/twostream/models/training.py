"""The training loop of all networks: S and both streams are fitted by ``fit``.

A training can be killed at any time. Called again with the same arguments, it resumes from its last checkpoint and ends
with the same weights as an uninterrupted run, because sample t depends on nothing but (seed, t), because the whole
state of the optimizer is stored, and because a checkpoint is replaced atomically.

Knows torch, Lightning and checkpoint files; must not know tasks, volumes or rounds.
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
"""A killed training repeats at most this many steps: some ten seconds with the laptop preset."""
DAMAGED = (RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError, pickle.UnpicklingError)
"""What ``torch.load`` and reading its result raise for a damaged file or one that is not a checkpoint."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of ``mallopt``; the values are those of <malloc.h>."""
KEPT_BYTES = 2**30
"""The C library keeps freed memory blocks up to this size for the next tensor."""
WARMUP_SHARE = 0.1
"""Share of all steps in which the learning rate rises, unless ``warmup_steps`` says otherwise."""
COOLING_SHARE = 0.3
"""Share of a training with ``patience`` in which the learning rate falls."""
SGD_MOMENTUM = 0.9
"""As in the published configurations (docs/method.md, Configurations)."""

Sample = Callable[[int], Any]
"""t -> training sample t, tensors without the batch axis."""


class _Samples(Dataset[Any]):
    """Samples ``first`` to ``last - 1`` of the endless sequence that ``sample`` defines."""

    def __init__(self, sample: Sample, first: int, last: int) -> None:
        self._sample, self._range = sample, range(first, last)

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int) -> Any:
        return self._sample(self._range[index])


class FitModule(lightning.LightningModule):
    """A network with its training loss, to be passed to ``fit``.

    Subclasses implement ``loss`` and, where ``validate_every`` is set, ``validation_loss``.

    Args:
        network: the network to train, in place.
        learning_rate: its highest value: the rate rises linearly during the warm-up and falls to 0, along a cosine over
            all steps or, with ``patience``, as told there.
        optimizer: "adamw" or "sgd" (momentum ``SGD_MOMENTUM``).
        weight_decay: of the optimizer.
        decay_norms: whether the weight decay also acts on parameters with a single axis: biases, and scale and shift
            of normalisation layers.
        clip_norm: a gradient with a larger norm (over all parameters) is scaled down to this; None: never.
        warmup_steps: steps in which the learning rate rises; None: ``WARMUP_SHARE`` of all steps.
        validate_every: steps between two validation checks; one more follows the last step. 0: no validation.
        patience: the training ends when validation says so. The learning rate stays at its highest value until this
            many checks in a row have found no lower loss; then it falls linearly to 0, so that ``COOLING_SHARE`` of the
            steps are done while it falls. Where the loss keeps falling, the rate falls in time for the last of all
            steps. None: all steps are done.

    Attributes:
        losses: training loss of every step so far.
        validation_losses: (step, loss) of every validation check so far.
        best: loss, step and weights of the validation check with the lowest loss; None before the first check.
        cools_from: step from which on the learning rate falls; None as long as it has its highest value.
        fingerprint: all settings that the final weights depend on. A checkpoint with another fingerprint is discarded
            instead of resumed.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        learning_rate: float,
        *,
        optimizer: str = "adamw",
        weight_decay: float = 0.01,
        decay_norms: bool = True,
        clip_norm: float | None = 1.0,
        warmup_steps: int | None = None,
        validate_every: int = 0,
        patience: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.learning_rate, self.optimizer_name, self.weight_decay = learning_rate, optimizer, weight_decay
        self.decay_norms, self.clip_norm = decay_norms, clip_norm
        self.warmup_steps, self.validate_every, self.patience = warmup_steps, validate_every, patience
        self.fingerprint: dict[str, Any] = {}
        self.losses: list[float] = []
        self.validation_losses: list[tuple[int, float]] = []
        self.best: dict[str, Any] | None = None
        self.cools_from: int | None = None

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        """Training loss of one batch.

        Args:
            batch: collated samples, on the device of the network.
            generator: on the CPU, seeded with the step number; the only source of randomness allowed here, so that a
                resumed training repeats the same values.

        Returns:
            Scalar tensor with a gradient.
        """
        raise NotImplementedError

    def validation_loss(self) -> float:
        """Loss on data that are never trained on; called with the network in evaluation mode, without gradients."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.global_step)
        loss = self.loss(batch, generator)
        if not torch.isfinite(loss.detach()):
            raise TrainingError(
                f"the loss is {float(loss.detach())} in step {self.global_step}: training has diverged. "
                f"Lower the learning rate (it is {self.learning_rate:g})."
            )
        self.losses.append(float(loss.detach()))
        if self.logger:
            self.log("loss", loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        """Run a validation check if one is due; an epoch ends wherever one is (``_EpochData``)."""
        if not self.validate_every:
            return
        if self.global_step % self.validate_every and self.global_step < self.trainer.max_steps:
            return
        self.network.eval()
        with torch.no_grad():
            loss = self.validation_loss()
        self.network.train()
        self.validation_losses.append((self.global_step, loss))
        if self.logger:
            self.log("validation loss", loss)
        if self.best is None or loss < self.best["loss"]:
            weights = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
            self.best = {"loss": loss, "step": self.global_step, "weights": weights}
        if self.patience is not None and self.cools_from is None and self._is_without_progress():
            self.cools_from = self.global_step
        if self.global_step >= self.last_step(int(self.trainer.max_steps)):
            self.trainer.should_stop = True

    def _is_without_progress(self) -> bool:
        """Whether ``patience`` validation checks have passed since the one with the lowest loss."""
        assert self.best is not None and self.patience is not None
        return sum(step > self.best["step"] for step, _ in self.validation_losses) >= self.patience

    def last_step(self, num_steps: int) -> int:
        """The step with which the training ends, as far as it is known now.

        Args:
            num_steps: the most steps that it may take.
        """
        if self.cools_from is None:
            return num_steps
        # A multiple, so that the weights of the last step are validated.
        last = math.ceil(self.cools_from / (1 - COOLING_SHARE) / self.validate_every) * self.validate_every
        return min(num_steps, last)

    def rate_factor(self, step: int, num_steps: int) -> float:
        """The learning rate of a step as a share of its highest value, in [0, 1].

        Args:
            step: from 0.
            num_steps: the most steps that the training may take.
        """
        warmup = round(WARMUP_SHARE * num_steps) if self.warmup_steps is None else min(self.warmup_steps, num_steps)
        warmup = max(1, warmup)
        if self.patience is None:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(num_steps - warmup, 1)))
        last = self.last_step(num_steps)
        cools_from = last - round(COOLING_SHARE * last) if self.cools_from is None else self.cools_from
        return min(1.0, (step + 1) / warmup, max(0.0, (last - step) / max(last - cools_from, 1)))

    def configure_optimizers(self) -> Any:
        parameters = self._parameter_groups()
        optimizer: torch.optim.Optimizer
        if self.optimizer_name == "sgd":
            optimizer = torch.optim.SGD(
                parameters, lr=self.learning_rate, momentum=SGD_MOMENTUM, weight_decay=self.weight_decay
            )
        else:
            optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        total = max(int(self.trainer.max_steps), 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate_factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """The trained parameters for the optimizer; without ``decay_norms`` those with a single axis do not decay."""
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        if self.decay_norms:
            return [{"params": parameters}]
        weights, others = ([p for p in parameters if (p.ndim > 1) == wanted] for wanted in (True, False))
        return [{"params": weights}, {"params": others, "weight_decay": 0.0}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["losses"], checkpoint["best"] = self.losses, self.best
        checkpoint["looks"] = self.validation_losses
        checkpoint["fingerprint"], checkpoint["cools_from"] = self.fingerprint, self.cools_from

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.losses, self.validation_losses = list(checkpoint["losses"]), list(checkpoint.get("looks", []))
        self.best, self.cools_from = checkpoint.get("best"), checkpoint.get("cools_from")


class _SaveAndShowProgress(Checkpoint):
    """Writes a checkpoint after each epoch and reports progress after each step.

    Derived from ``Checkpoint`` because Lightning calls such callbacks last, so that the checkpoint contains the result
    of a validation check made at the end of the same epoch.

    Args:
        path: the checkpoint file; each one replaces the one before.
        advance: called with the number of steps done since its last call.
    """

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        self._path, self._advance = path, advance
        self._shown = 0

    def __getstate__(self) -> dict[str, Any]:
        """State for the processes of several GPUs. The progress bar belongs to this terminal and cannot be pickled."""
        return vars(self) | {"_advance": _show_no_progress}

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._advance(trainer.global_step - self._shown)
        self._shown = trainer.global_step

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        partial = self._path.with_suffix(".writing")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, self._path)


def _show_no_progress(steps: int) -> None:
    """Stands in for the progress bar in a process without a terminal."""


def _accelerator(devices: int) -> tuple[str, int]:
    """Lightning's name of the accelerator, and how many of it to use: at most ``devices`` GPUs, else one CPU."""
    return ("cuda", min(devices, torch.cuda.device_count())) if torch.cuda.is_available() else ("cpu", 1)


def _precision(wanted: str, accelerator: str) -> str:
    """The precision that Lightning gets: "16-mixed" needs a GPU and becomes "32-true" on a CPU."""
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
    """Train ``module`` in place for ``num_steps`` steps, or until validation ends it (``FitModule.patience``).

    Args:
        module: network and loss; left on the CPU in evaluation mode, with the weights of the last step.
        sample: t -> sample t; must depend on t alone. Torch's default collation makes batches of the samples.
        num_steps: optimizer steps in total, including those of an earlier run that is resumed; with ``patience`` the
            most that there may be.
        batch_size: samples per step and device; step s trains on batch_size * devices samples, the first of them
            sample s * batch_size * devices.
        resume_path: checkpoint file, resumed from if it exists and has the same fingerprint. The caller deletes it
            once it has stored the result.
        description: label of the progress bar.
        precision: "32", "16-mixed" or "bf16-mixed"; on a CPU "16-mixed" means "32".
        devices: number of GPUs, at most those that torch sees; without a GPU one CPU is used. With more than one, each
            has a process of its own, to which ``module`` and ``sample`` are pickled.
        tensorboard_dir: folder for curves and image panels; None: nothing is logged.

    Returns:
        The training loss of every step.

    Raises:
        TrainingError: the loss is not finite.
    """
    if num_steps == 0:
        return []
    module.fingerprint |= {
        "num_steps": num_steps, "batch_size": batch_size, "learning_rate": module.learning_rate,
        "optimizer": module.optimizer_name, "weight_decay": module.weight_decay, "warmup_steps": module.warmup_steps,
        "decay_norms": module.decay_norms, "clip_norm": module.clip_norm, "look_every": module.validate_every,
        "patience": module.patience, "precision": precision, "devices": devices,
        "num_threads": torch.get_num_threads(),
    }  # fmt: skip
    resume = _resumable_checkpoint(resume_path, module)
    if resume:
        stored = torch.load(resume, weights_only=False)
        module.on_load_checkpoint(stored)
        if len(module.losses) >= module.last_step(num_steps):  # killed after the end, before the caller stored it
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
            callbacks=[_SaveAndShowProgress(resume_path, advance)],
            gradient_clip_val=module.clip_norm,
        )
        data = _EpochData(sample, module.validate_every, batch_size * devices, batch_size, num_steps)
        module.train()
        trainer.fit(module, datamodule=data, ckpt_path=str(resume) if resume else None, weights_only=False)
    if devices > 1:  # only the weights come back from the processes; losses and validation are in the checkpoint
        module.on_load_checkpoint(torch.load(resume_path, weights_only=False))
    module.cpu().eval()
    return module.losses


class _EpochData(lightning.LightningDataModule):
    """Training samples, cut into epochs that end where a checkpoint or a validation check is due.

    An epoch ends at the next multiple of ``STEPS_PER_CHECKPOINT`` or of ``validate_every``, whichever comes first:
    Lightning can resume exactly only at the end of an epoch.

    Args:
        sample: t -> sample t.
        validate_every: steps between two validation checks, or 0.
        samples_per_step: of all devices together.
        batch_size: samples per step and device.
        num_steps: optimizer steps of the whole training.
    """

    def __init__(
        self, sample: Sample, validate_every: int, samples_per_step: int, batch_size: int, num_steps: int
    ) -> None:
        super().__init__()
        self._sample, self._validate_every, self._num_steps = sample, validate_every, num_steps
        self._samples_per_step, self._batch_size = samples_per_step, batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        # The step and not the epoch number: Lightning makes the first loader before it restores the epoch number.
        first = self.trainer.global_step
        ends = [every - first % every for every in (STEPS_PER_CHECKPOINT, self._validate_every) if every]
        last = min(first + min(ends), self._num_steps)
        samples = _Samples(self._sample, first * self._samples_per_step, last * self._samples_per_step)
        return DataLoader(samples, batch_size=self._batch_size, shuffle=False)


def best_weights(module: FitModule) -> dict[str, torch.Tensor]:
    """Weights of the validation check with the lowest loss; the last weights if there was no validation.

    With ``patience`` they are the last ones as well: once the learning rate has fallen, the loss on a small validation
    box varies by chance more than S does (LOG.md).
    """
    if module.best is None or module.patience is not None:
        return copy.deepcopy(module.network.state_dict())
    weights: dict[str, torch.Tensor] = module.best["weights"]
    return weights


def _resumable_checkpoint(path: Path, module: FitModule) -> Path | None:
    """``path`` if it holds a checkpoint of this very training, else None; any other file there is deleted."""
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
        progress.say(
            f"  {path} is damaged, or was made with other settings or data: training starts from the beginning"
        )
        path.unlink()
    return path if fits else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's warnings about missing loggers, workers and sanity checks: these are left out on purpose."""
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
    """Fix the number of threads and choose deterministic algorithms, so that every run gives the same weights.

    Floating-point sums depend on their order, and with it on the number of threads.
    """
    torch.set_num_threads(num_threads)
    # On a CPU, deterministic algorithms exist for all that is used here. CUDA has none for the gradient of the
    # interpolation: warn then, instead of failing.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    _keep_freed_memory()
    # Torch fills uninitialised memory with NaN in deterministic mode, to expose code that reads it. That takes a tenth
    # of every training step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _keep_freed_memory() -> None:
    """Let glibc reuse freed memory for the next tensor; does nothing with another C library.

    By default glibc returns large blocks to the system and requests new ones page by page, which takes a third of a
    forward pass on a CPU (LOG.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return
    mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """``torch.save`` to ``path``: after a crash the file is either the old one or the complete new one."""
    partial = path.with_suffix(".writing")
    torch.save(state, partial)
    os.replace(partial, path)

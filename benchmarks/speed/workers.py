"""What step.py and training.py have in common: warm processes that do training steps when told, one at a time.

Each side of a comparison has a process of its own, so that settings of malloc, number formats and memory do not mix.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import importlib
import io
import json
import os
import platform
import re
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from potgan.common.device import keep_freed_memory, peak_memory_bytes
from potgan.common.errors import UserError
from potgan.common.files import write_json
from potgan.data.batches import Batch, to_mask, to_model
from potgan.data.pixels import read_image
from potgan.data.pose_rendering import heatmaps, model_mask
from potgan.methods.method import Method
from potgan.methods.perceptual import PerceptualNetwork
from potgan.methods.potgan.discriminator import Discriminator
from potgan.methods.potgan.generator import Generator
from potgan.report.environment import commit, hardware
from potgan.settings.methods import options_class
from potgan.settings.reading import load
from potgan.settings.schema import (
    DiscriminatorSettings,
    GeneratorSettings,
    LossWeights,
    MaskSettings,
    RunSettings,
    TrainingSettings,
    options_beside,
)
from potgan.training import loop
from potgan.training.estimate import TimedTraining, random_pairs, synchronise

REPOSITORY = Path(__file__).resolve().parent.parent.parent
#: What can be taken out of our step one at a time, and what stands there instead.
IMPROVEMENTS = {
    "frozen discriminator": "its gradients are also computed in the generator's step, and thrown away",
    "channels last": "NCHW",
    "fused Adam": "Adam's default",
    "kept memory": "malloc as it comes",
    "resident data": "a DataLoader with two workers that read PNG files",
    "losses on the device": "every loss is waited for at every step",
}


def settings_from(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `paper_settings` that the command lines of the scripts have in common."""
    return {
        "size": arguments.size,
        "batch_size": arguments.batch,
        "width": arguments.width,
        "threads": arguments.threads,
    }


def paper_settings(
    size: tuple[int, int],
    batch_size: int,
    width: int = 64,
    precision: str = "fp32",
    compile: str = "never",
    threads: int = 1,
    iterations: int = 90_000,
    method: str = "potgan",
    **training: Any,
) -> RunSettings:
    """PoT-GAN as config/paper.yaml has it, at a size and width. VGG's weights are random: their values cost no time.

    method: another one has its authors' options, with all its widths times `width` / 64.
    """
    options = options_class(method)
    return RunSettings(
        method=method,
        options=options and options(**options_beside(options, {"perceptual_network": "random"}, width)),
        dataset="random",
        seed=0,
        image_size=size,
        generator=GeneratorSettings(width=width),
        discriminator=DiscriminatorSettings(width=width),
        loss_weights=LossWeights(),
        masks=MaskSettings(),
        training=TrainingSettings(
            iterations=iterations,
            batch_size=batch_size,
            decay_from=iterations * 2 // 3,
            perceptual_network="random",
            precision=precision,
            compile=compile,
            threads=threads,
            **training,
        ),
    )


@contextlib.contextmanager
def clock_of_updates() -> Iterator[list[tuple[int, float]]]:
    """Give a list that `loop.train` fills: (iteration, clock in seconds) at the start of each update.

    On a GPU the clock is not synchronised, but the training waits for the device at each line of its log.
    """
    begun: list[tuple[int, float]] = []
    original = loop.build_method

    def watched(*inputs: Any) -> Method:
        method = original(*inputs)
        set_rates = method.set_rates

        def timed(iteration: int) -> None:  # it begins every update
            begun.append((iteration, time.perf_counter()))
            set_rates(iteration)

        method.set_rates = timed
        return method

    loop.build_method = watched
    try:
        yield begun
    finally:
        loop.build_method = original


# ---------------------------------------------------------------------------------------------------------------------
# The same training as a first version of it would be written


class PlainStep:
    """One iteration of Algorithm 1 in plain PyTorch: the same networks, losses and order of updates as PoTGAN."""

    def __init__(self, settings: RunSettings, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        options = settings.training
        self.weights = settings.loss_weights
        self.generator = Generator(settings.generator, settings.image_size).to(device)
        self.discriminator = Discriminator(settings.discriminator, settings.image_size).to(device)
        self.perceptual = PerceptualNetwork("random").to(device)
        adam = {"lr": options.learning_rate, "betas": options.adam_betas}
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), **adam)
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), **adam)

    def __call__(self, batch: Batch) -> dict[str, float]:
        fake = self.generator(batch.source_image, batch.source_mask, batch.target_mask, batch.target_heatmaps).image
        logits = self.discriminator(fake, batch.target_mask)
        reconstruction = F.l1_loss(fake, batch.target_image)
        perceptual = F.l1_loss(self.perceptual(fake), self.perceptual(batch.target_image))
        adversarial = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        weights = self.weights
        loss = (
            weights.reconstruction * reconstruction
            + weights.perceptual * perceptual
            + weights.adversarial * adversarial
        )
        self.generator_optimizer.zero_grad()
        loss.backward()
        self.generator_optimizer.step()

        real_logits = self.discriminator(batch.target_image, batch.target_mask)
        fake_logits = self.discriminator(fake.detach(), batch.target_mask)
        discriminator = (
            F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
            + F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
        ) / 2
        self.discriminator_optimizer.zero_grad()
        discriminator.backward()
        self.discriminator_optimizer.step()
        return {
            "reconstruction": reconstruction.item(),
            "perceptual": perceptual.item(),
            "adversarial": adversarial.item(),
            "discriminator": discriminator.item(),
        }


class PairFiles(torch.utils.data.Dataset):
    """Pairs whose images are read from PNG files, and whose masks and heat maps are drawn, each time anew."""

    def __init__(self, settings: RunSettings, folder: Path, images: int = 128, pairs: int = 4096) -> None:
        self.settings = settings
        self.data = random_pairs(settings.image_size, settings.masks.heatmap_sigma, images, pairs)
        self.files = []
        for number, image in enumerate(self.data.images.permute(0, 2, 3, 1).numpy()):
            path = folder / f"{number}.png"
            # Blurred: noise is as large as no photograph, and slow to decode.
            cv2.imwrite(str(path), cv2.GaussianBlur(image, (0, 0), 2))
            self.files.append(path)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        """Name of a part of `Batch` -> its values for one pair."""
        size, masks = self.settings.image_size, self.settings.masks
        found = {}
        for role, rows in (("source", self.data.sources), ("target", self.data.targets)):
            row = int(rows[position])
            joints = self.data.joints[row]
            found[f"{role}_image"] = to_model(torch.from_numpy(read_image(self.files[row])).permute(2, 0, 1))
            found[f"{role}_mask"] = to_mask(torch.from_numpy(model_mask(joints.numpy(), *size, masks))[None])
        return found | {"target_heatmaps": heatmaps(joints[None], *size, masks.heatmap_sigma)[0]}


@dataclass
class Loaded:
    """A batch that a DataLoader has made, in the form in which an update takes its inputs."""

    batch: Batch

    def on(self, device: torch.device) -> Batch:
        return self.batch


def loaded_batches(settings: RunSettings, device: torch.device) -> Iterator[list[Loaded]]:
    """Endless batches through torch's DataLoader with two worker processes."""
    with tempfile.TemporaryDirectory() as folder:
        loader = torch.utils.data.DataLoader(
            PairFiles(settings, Path(folder)),
            batch_size=settings.training.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=2,
            pin_memory=device.type == "cuda",
            persistent_workers=True,
        )
        while True:
            for parts in loader:
                yield [Loaded(Batch(**{name: part.to(device, non_blocking=True) for name, part in parts.items()}))]


# ---------------------------------------------------------------------------------------------------------------------
# Sides: an object with run(steps) -> seconds


class Ours(TimedTraining):
    """PoTGAN, or the method that the settings name, on resident pairs.

    without: one of IMPROVEMENTS, taken out; or "forced layout", with which the compiler chooses the layout of each tensor.
    """

    def __init__(self, settings: RunSettings, device: torch.device, without: str | None = None) -> None:
        if without != "kept memory":
            keep_freed_memory()
        data = random_pairs(settings.image_size, settings.masks.heatmap_sigma).placed(device)
        super().__init__(settings, device, data)
        method = self.method
        if without == "forced layout":
            torch._inductor.config.force_layout_optimization = False
        if without == "frozen discriminator":
            method.discriminator.requires_grad_ = lambda flag: method.discriminator
        elif without == "channels last":
            for network in (method.generator, method.discriminator, method.perceptual):
                network.to(memory_format=torch.contiguous_format)
        elif without == "fused Adam":
            betas = settings.training.adam_betas
            groups = [{"params": group["params"]} for group in method.generator_optimizer.param_groups]
            options = method.optimiser_options
            method.generator_optimizer = torch.optim.Adam(groups, betas=betas, **options)
            method.discriminator_optimizer = torch.optim.Adam(method.discriminator.parameters(), betas=betas, **options)
        elif without == "resident data":
            self.batches = loaded_batches(settings, device)
            self.update = lambda parts, iteration: method.update([part.on(device) for part in parts], iteration)
        elif without == "losses on the device":
            self.meter = types.SimpleNamespace(add=lambda terms: [value.item() for value in terms.values()])


class Plain:
    def __init__(self, settings: RunSettings, device: torch.device) -> None:
        self.device = device
        self.step = PlainStep(settings, device)
        self.batches = loaded_batches(settings, device)

    def run(self, steps: int) -> float:
        synchronise(self.device)
        start = time.perf_counter()
        for _ in range(steps):
            (loaded,) = next(self.batches)
            self.step(loaded.batch)
        synchronise(self.device)
        return time.perf_counter() - start


class Authors:
    """A training step of a method's authors, their own modules imported from a checkout and driven as their code does.

    Its batches lie on the device already: its loader is not timed. VGG's weights are random ones of the same shape, which take the
    same time.

    repository, file: of the checkout, so that another folder is refused. rate: of Adam.
    """

    repository: str
    file: str
    rate: float
    LAMBDA_GAN, JOINTS = 5.0, 18

    def __init__(self, settings: RunSettings, device: torch.device, checkout: str) -> None:
        if not Path(checkout, self.file).is_file():
            raise UserError(f"{checkout}: is no checkout of {self.repository} (no {self.file})")
        self.device = device
        self.gpus = [0] if device.type == "cuda" else []
        sys.path.insert(0, checkout)
        torch.manual_seed(0)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its networks
            self._build(settings)
        batch, size = settings.training.batch_size, settings.image_size
        generator = torch.Generator().manual_seed(0)
        self.images = [(torch.rand(batch, 3, *size, generator=generator) * 2 - 1).to(device) for _ in range(2)]
        self.poses = [torch.rand(batch, self.JOINTS, *size, generator=generator).to(device) for _ in range(2)]
        self.optimizers = [
            torch.optim.Adam([w for w in network.parameters() if w.requires_grad], lr=self.rate, betas=(0.5, 0.999))
            for network in (self.generator, self.by_pose, self.by_person)
        ]

    def _build(self, settings: RunSettings) -> None:
        """Make `generator`, `by_pose`, `by_person`, `gan_loss` and what else a step uses."""
        raise NotImplementedError

    def step(self) -> None:
        raise NotImplementedError

    def _build_discriminators(self, networks: types.ModuleType, width: int, norm: str, sigmoid: bool) -> None:
        # Three residual blocks, dropout, n_downsampling 2; ndf is 64 in their options.
        self.by_pose, self.by_person = (
            networks.define_D(3 + inputs, width, "resnet", 3, norm, sigmoid, "normal", self.gpus, True, 2)
            for inputs in (self.JOINTS, 3)
        )
        tensor = torch.cuda.FloatTensor if self.gpus else torch.FloatTensor
        self.gan_loss = networks.GANLoss(use_lsgan=not sigmoid, tensor=tensor)

    @contextlib.contextmanager
    def _stand_ins(self, *replaced: tuple[object, str, Any]) -> Iterator[None]:
        """What their code asks for and this machine may not have. replaced: (owner, name, stand-in)."""
        if not self.gpus:  # it calls .cuda() without asking; on a CPU its tensors stay where they are
            replaced += ((torch.nn.Module, "cuda", lambda self: self), (torch.Tensor, "cuda", lambda self: self))
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
        try:
            for owner, name, value in replaced:
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)

    def _discriminator_step(
        self, network: torch.nn.Module, optimizer: torch.optim.Adam, real: torch.Tensor, fake: torch.Tensor
    ) -> torch.Tensor:
        optimizer.zero_grad()
        loss = self.LAMBDA_GAN * (self.gan_loss(network(real), True) + self.gan_loss(network(fake.detach()), False)) / 2
        loss.backward()
        optimizer.step()
        return loss

    def run(self, steps: int) -> float:
        with self._stand_ins():
            synchronise(self.device)
            start = time.perf_counter()
            for _ in range(steps):
                self.step()
            synchronise(self.device)
            return time.perf_counter() - start


def random_vgg19(width: int = 64) -> Any:
    """A stand-in for a function `torchvision.models.vgg19`: its convolutions and pools, with so many channels in the first block.

    The dense layers are left out, because nobody uses them, and drawing their 120 million weights takes seconds.
    """
    from torchvision.models import vgg

    layers = [kind if kind == "M" else kind * width // 64 for kind in vgg.cfgs["E"]]

    def vgg19(pretrained: bool) -> types.SimpleNamespace:
        features = vgg.make_layers(layers, batch_norm=False)
        return types.SimpleNamespace(features=features, load_state_dict=lambda state: None)

    return vgg19


class Patn(Authors):
    """PATN's training step (Zhu et al., CVPR 2019), driven as models/PATN.py does with the options of scripts/train_star.sh for
    Market-1501.

    models/PATN.py itself is not imported: it needs a scikit-image of 2018 (`draw.circle`) for its pictures, and indexes
    0-d tensors, which PyTorch has refused since 0.5.
    """

    repository, file, rate = "tengteng95/Pose-Transfer", "models/model_variants.py", 2e-4
    #: scripts/train_star.sh, and the defaults of options/train_options.py that it leaves.
    LAMBDA_L1, LAMBDA_PERCEPTUAL, POOL = 10.0, 10.0, 50

    def _build(self, settings: RunSettings) -> None:
        networks = importlib.import_module("models.networks")
        pool = importlib.import_module("util.image_pool").ImagePool
        losses = importlib.import_module("losses.L1_plus_perceptualLoss")
        width = settings.generator.width
        # ngf is 64 in its options; n_downsampling 2, batch norm and dropout in all three networks.
        inputs = [3, 2 * self.JOINTS]
        self.generator = networks.define_G(inputs, 3, width, "PATN", "batch", True, "normal", self.gpus, 2)
        self._build_discriminators(networks, width, "batch", sigmoid=True)
        with self._stand_ins((losses.models, "vgg19", random_vgg19())):
            self.image_loss = losses.L1_plus_perceptualLoss(self.LAMBDA_L1, self.LAMBDA_PERCEPTUAL, 3, self.gpus, 1)
        self.pose_pool, self.person_pool = pool(self.POOL), pool(self.POOL)

    def step(self) -> None:
        (source, target), (source_pose, target_pose) = self.images, self.poses
        for_generator, for_pose, for_person = self.optimizers
        fake = self.generator([source, torch.cat((source_pose, target_pose), 1)])
        for_generator.zero_grad()
        by_pose = self.gan_loss(self.by_pose(torch.cat((fake, target_pose), 1)), True)
        by_person = self.gan_loss(self.by_person(torch.cat((fake, source), 1)), True)
        image_loss, first, second = self.image_loss(fake, target)
        told = [first.item(), second.item()]
        gan_loss = self.LAMBDA_GAN * (by_pose + by_person) / 2
        (image_loss + gan_loss).backward()
        told += [image_loss.item(), gan_loss.item()]
        for_generator.step()
        fakes = self.person_pool.query(torch.cat((fake, source), 1).data)
        told.append(self._discriminator_step(self.by_person, for_person, torch.cat((target, source), 1), fakes).item())
        fakes = self.pose_pool.query(torch.cat((fake, target_pose), 1).data)
        told.append(self._discriminator_step(self.by_pose, for_pose, torch.cat((target, target_pose), 1), fakes).item())
        if not np.isfinite(told).all():
            raise RuntimeError(f"PATN's losses are {told}")
        self.told = told


class Adgan(Authors):
    """ADGAN's training step (Men et al., CVPR 2020), driven as models/adgan.py does with the options of scripts/train.sh.

    models/adgan.py itself is not imported: it reads weights from folders of its authors' machine. Losses are read back by its
    progress lines only, once in 100 steps, and here once in each call of `run`.
    """

    repository, file, rate = "menyifang/ADGAN", "models/model_adgen.py", 1e-3
    #: scripts/train.sh, and the defaults of options/train_options.py that it leaves. With a pool of 0 all images are new ones.
    LAMBDA_L1, LAMBDA_PERCEPTUAL, LAMBDA_CONTEXTUAL, COMPONENTS = 1.0, 1.0, 0.1, 8

    def _build(self, settings: RunSettings) -> None:
        networks = importlib.import_module("models.networks")
        generators = importlib.import_module("models.model_adgen")
        losses = importlib.import_module("losses.L1_plus_perceptualLoss")
        width = settings.generator.width
        nothing = (torch, "load", lambda *_, **__: {})
        # `define_G` has the style's and the multi-layer perceptron's sizes for ngf 64; these are the same there.
        with self._stand_ins((generators.models, "vgg19", random_vgg19(width)), nothing):
            self.generator = generators.ADGen(3, width, self.COMPONENTS * width, 2, 8, 4 * width)
            frozen = {name: value.clone() for name, value in self.generator.enc_style.vgg.state_dict().items()}
            networks.init_weights(self.generator)
            self.generator.enc_style.vgg.load_state_dict(frozen)  # which it draws anew, and then loads
        self.generator.to(self.device)
        with self._stand_ins((losses.models, "vgg19", random_vgg19()), nothing):
            self._build_discriminators(networks, width, "instance", sigmoid=False)
            self.image_loss = losses.L1_plus_perceptualLoss(self.LAMBDA_L1, self.LAMBDA_PERCEPTUAL, 3, self.gpus, 1)
        self.contextual_loss = importlib.import_module("losses.CX_style_loss").CXLoss(sigma=0.5)
        self.vgg = importlib.import_module("models.vgg").VGG().to(self.device).requires_grad_(False)
        # As large as the published weights. PyTorch's own would fade out layer by layer.
        for layer in self.vgg.children():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        batch, size = settings.training.batch_size, settings.image_size
        classes = torch.randint(self.COMPONENTS, (batch, *size), generator=torch.Generator().manual_seed(1))
        self.parsing = F.one_hot(classes, self.COMPONENTS).permute(0, 3, 1, 2).float().contiguous().to(self.device)

    def step(self) -> None:
        (source, target), (_, pose) = self.images, self.poses
        for_generator, for_pose, for_person = self.optimizers
        fake = self.generator(pose, source, self.parsing)
        for_generator.zero_grad()
        by_pose = self.gan_loss(self.by_pose(torch.cat((fake, pose), 1)), True)
        by_person = self.gan_loss(self.by_person(torch.cat((fake, source), 1)), True)
        layers = ["r32", "r42"]
        pairs = zip(self.vgg(target, layers), self.vgg(fake, layers), strict=True)
        contextual = self.LAMBDA_CONTEXTUAL * sum(self.contextual_loss(wanted, found) for wanted, found in pairs)
        image_loss, first, second = self.image_loss(fake, target)
        gan_loss = self.LAMBDA_GAN * (by_pose + by_person) / 2
        (image_loss + gan_loss + contextual).backward()
        for_generator.step()
        real, made = torch.cat((target, source), 1), torch.cat((fake, source), 1).data
        of_person = self._discriminator_step(self.by_person, for_person, real, made)
        real, made = torch.cat((target, pose), 1), torch.cat((fake, pose), 1).data
        of_pose = self._discriminator_step(self.by_pose, for_pose, real, made)
        self._losses = [value.detach() for value in (first, second, gan_loss, contextual, of_person, of_pose)]

    def run(self, steps: int) -> float:
        seconds = super().run(steps)
        self.told = [value.item() for value in self._losses]
        if not np.isfinite(self.told).all():
            raise RuntimeError(f"ADGAN's losses are {self.told}")
        return seconds


#: Method -> the side that is its authors' code.
AUTHORS: dict[str, type[Authors]] = {"patn": Patn, "adgan": Adgan}


def build_side(kind: str, settings: RunSettings, device: torch.device, **more: Any) -> Ours | Plain | Authors:
    """kind: `ours`, `plain`, or one of AUTHORS. more: `without` of Ours, `checkout` and `tf32` of Authors."""
    torch.set_num_threads(settings.training.threads)
    if kind == "ours":
        return Ours(settings, device, **more)
    # fp32 means fp32 on a GPU, too; PyTorch's present default for convolutions is TF32, which its authors had not.
    torch.backends.cudnn.allow_tf32 = more.pop("tf32", False)
    return Plain(settings, device) if kind == "plain" else AUTHORS[kind](settings, device, **more)


def floating_point_operations(side: Ours | Plain | Authors) -> int:
    """Of one step of an uncompiled side; a multiplication and an addition are two. Optimisers are not counted."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        side.run(1)
    return counter.get_total_flops()


#: Kinds of kernels on a GPU, by what their names hold; the first that fits counts.
KERNELS = {
    "fused by the compiler": r"^triton_",
    "warps": r"grid_sampler",
    "optimiser": r"multi_tensor|adam",
    "layout of tensors": r"nhwcToNchw|nchwToNhwc|AddPadding|[Cc]opy|Memcpy|Memset|CatArray",
    "convolution": r"conv|xmma|fprop|dgrad|wgrad|cudnn|implicit|sm90.*(nhwc|nchw)",
    "matrix product": r"gemm|cublas|gemv|nvjet",
    "normalisation": r"norm",
}


def kernels(side: Ours, steps: int) -> dict[str, Any]:
    """The kernels of a step on a GPU, from the profiler, and what share of a step's time they fill."""
    from torch.profiler import ProfilerActivity, profile

    alone = min(side.run(steps) / steps for _ in range(3))
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiler:
        side.run(steps)
    _log_sequence(profiler, steps)
    rows: dict[str, list[float]] = {}  # kernel -> seconds and calls of one step
    for event in profiler.key_averages():
        # What torch marks by itself (optimisers, compiled regions) spans kernels that have entries of their own.
        if event.device_type == torch.autograd.DeviceType.CUDA and not re.match(
            r"Optimizer\.|ProfilerStep|.*Compiled", event.key
        ):
            rows[event.key] = [event.self_device_time_total / 1e6 / steps, event.count / steps]
    busy = sum(seconds for seconds, _ in rows.values())
    kinds: dict[str, float] = {}
    for name, (seconds, _) in rows.items():
        kind = next((kind for kind, pattern in KERNELS.items() if re.search(pattern, name)), "other")
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    largest = sorted(rows.items(), key=lambda item: -item[1][0])
    return {
        "seconds_per_step": alone,
        "busy_seconds_per_step": busy,
        "kernels_per_step": sum(calls for _, calls in rows.values()),
        "share": {kind: seconds / busy for kind, seconds in sorted(kinds.items(), key=lambda item: -item[1])},
        "largest": [
            {"kernel": name, "share": seconds / busy, "seconds": seconds, "calls": calls}
            for name, (seconds, calls) in largest[:60]
        ],
    }


def _log_sequence(profiler: Any, steps: int) -> None:
    """Write the kernels of the last step into the log, in their order, which tells the layer that a kernel belongs to."""
    run = sorted(
        (event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA),
        key=lambda event: event.time_range.start,
    )
    for event in run[-len(run) // steps :]:
        print(f"{event.time_range.start:.1f} {event.self_device_time_total:.1f} us {event.key[:140]}")


def print_kernels(found: dict[str, Any], title: str) -> None:
    """The ten largest kernels as a table, and the kinds of all."""
    seconds, busy = found["seconds_per_step"], found["busy_seconds_per_step"]
    print(
        f"kernels of a step, {title}: {found['kernels_per_step']:,.0f} kernels, {busy * 1e3:.2f} ms of {seconds * 1e3:.2f} ms; in "
        f"the rest, {100 * max(0.0, 1 - busy / seconds):.1f} %, the GPU waits"
    )
    for kind, share in found["share"].items():
        print(f"  {kind:32} {100 * share:5.1f} %")
    print("| kernel | % | ms | calls |\n|---|---:|---:|---:|")
    for row in found["largest"][:10]:
        print(
            f"| `{row['kernel'][:110]}` | {100 * row['share']:.1f} | {row['seconds'] * 1e3:.3f} | {row['calls']:.0f} |"
        )


def matrix_peak(precision: str, device: torch.device) -> float:
    """Floating-point operations per second of one large square matrix product: the best of some, after some to warm up."""
    size = 8192 if device.type == "cuda" else 1024
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    a, b = (
        torch.randn(size, size, device=device).to(torch.bfloat16 if precision == "bf16" else torch.float32)
        for _ in range(2)
    )
    repeats = 10 if device.type == "cuda" else 1
    best, began = 0.0, time.perf_counter()
    for _ in range(8):
        if best and time.perf_counter() - began > 10:  # a processor without bf16 takes many seconds for one product
            break
        synchronise(device)
        start = time.perf_counter()
        for _ in range(repeats):
            a @ b
        synchronise(device)
        best = max(best, repeats * 2 * size**3 / (time.perf_counter() - start))
    torch.backends.cuda.matmul.allow_tf32 = tf32
    return best


# ---------------------------------------------------------------------------------------------------------------------
# Processes


def name_of_cache(settings: dict[str, Any], more: dict[str, Any]) -> str:
    """The name of the folder for what a side compiles, such as `bf16-128x64-32`."""
    height, width = settings["size"]
    without = f"-without-{more['without'].replace(' ', '-')}" if more.get("without") else ""
    method = f"{settings['method']}-" if "method" in settings else ""
    return f"{method}{settings.get('precision', 'fp32')}-{height}x{width}-{settings['batch_size']}{without}"


class Failed(Exception):
    """A process could not do what it was told; the text says why."""


class Worker:
    """A process that builds a side and then does steps when told.

    side: arguments of `build_side` (kind, more) and of `run_settings`. limit: seconds that an answer may take.
    memory: bytes that the process may allocate on the host (None: all there is), so that nobody else's are taken.
    wait: whether to wait until the side is built; without it, `built` waits, so that several start at the same time.
    """

    def __init__(
        self,
        kind: str,
        device: str,
        settings: dict[str, Any],
        limit: float = 600,
        memory: int | None = None,
        wait: bool = True,
        **more: Any,
    ) -> None:
        self.limit = limit
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        if "POTGAN_COMPILED" in environment and settings.get("compile") == "always":
            # A folder for what each side compiles: processes that compile at the same time wait for each other in a shared one.
            folder = Path(environment["POTGAN_COMPILED"], name_of_cache(settings, more))
            environment["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # so that the compiler's processes end with it
        )
        # Where several sides compile at the same time, those in bf16 come first: they are what is trained with.
        patient = settings.get("compile") == "always" and settings.get("precision") != "bf16"
        self.tell(kind=kind, device=device, settings=settings, memory=memory, nice=10 * patient, more=more)
        if wait:
            self.built()

    def built(self) -> None:
        """Wait until the side is built. Raises Failed, and ends the process, if it cannot be built."""
        try:
            self.answer()
        except Failed:
            self.close()
            raise

    def ask(self, **command: Any) -> Any:
        self.tell(**command)
        return self.answer()

    def tell(self, **command: Any) -> None:
        """Send a command whose answer `answer` will wait for."""
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed("the process has ended") from None

    def answer(self, limit: float | None = None) -> Any:
        """The answer to the last command. limit: seconds; by default that of all answers. Raises Failed if there is none."""
        limit = self.limit if limit is None else limit
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(limit):
                self.close()
                raise Failed(f"no answer within {limit:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise Failed(f"the process ended with code {self.process.returncode}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["value"]

    def steps(self, count: int) -> tuple[float, float]:
        """Mean seconds of that many steps: on the clock, and of this process's threads on processors."""
        clock, processors = self.ask(steps=count)
        return clock / count, processors / count

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve() -> None:
    """The process of a Worker: it reads one JSON command per line and writes one JSON answer per line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    warnings.simplefilter("ignore")
    side = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if side is None:
                side, value = _built(command), None
            elif "steps" in command:
                before = time.process_time()
                value = [side.run(command["steps"]), time.process_time() - before]
            elif "flops" in command:
                value = floating_point_operations(side)
            elif "compile" in command:
                # Several processes compile at the same time. The choice among algorithms for convolutions, by trying them, must
                # wait until this process is alone: torch remembers choices apart for `deterministic`, so it will choose again.
                torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
                value = side.run(1)
                torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
                torch.cuda.empty_cache()  # while others are timed, the rest of the device is theirs
            elif "kernels" in command:
                value = kernels(side, command["kernels"])
            elif "really" in command:
                value = {
                    "compiled": side.method.ran_compiled,
                    "recorded": getattr(side.update, "recorded", False),
                }
            elif "matrix_peak" in command:
                value = matrix_peak(command["matrix_peak"], side.device)
            else:
                value = peak_memory_bytes(side.device)
            answer = {"value": value}
        except UserError as error:
            answer = {"error": str(error)}
        except Exception as error:
            text = " ".join(str(error).split())
            lacking = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in text
            answer = {"error": "out of memory" if lacking else f"{type(error).__name__}: {text[:300]}"}
        try:
            print(json.dumps(answer), file=answers, flush=True)
        except BrokenPipeError:  # the comparison was broken off
            os._exit(1)


def _built(command: dict[str, Any]) -> Ours | Plain | Authors:
    device = torch.device(command["device"])
    os.nice(command["nice"])
    if command["memory"] is not None and device.type == "cpu":
        resource.setrlimit(resource.RLIMIT_DATA, (command["memory"], command["memory"]))
    return build_side(command["kind"], run_settings(**command["settings"]), device, **command["more"])


def run_settings(configuration: str | None = None, **settings: Any) -> RunSettings:
    """The settings of a side: `paper_settings`, or the main model of a configuration file with other settings of training."""
    if configuration is None:
        return paper_settings(**settings | {"size": tuple(settings["size"])})
    benchmark = load(REPOSITORY / configuration)
    run = benchmark.run_settings(next(iter(benchmark.datasets)), benchmark.main_model, benchmark.seeds[0])
    width = settings.pop("discriminator_width", run.discriminator.width)
    discriminator = dataclasses.replace(run.discriminator, width=width)
    return dataclasses.replace(run, discriminator=discriminator, training=dataclasses.replace(run.training, **settings))


# ---------------------------------------------------------------------------------------------------------------------
# Arguments and results


def size_argument(text: str) -> tuple[int, int]:
    """ "128x64" -> (128, 64): height, width."""
    height, width = (int(part) for part in text.split("x"))
    return height, width


def free_memory() -> int | None:
    """Bytes that this machine could still give away, or None where the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return None


def spread(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def record(script: str, arguments: dict[str, Any], **results: Any) -> dict[str, Any]:
    """What is written as JSON: the numbers, and all that they depend on."""
    return {
        "script": script,
        "arguments": {name: value.name if isinstance(value, Path) else value for name, value in arguments.items()},
        "revision": os.environ.get("POTGAN_REVISION") or (dataclasses.asdict(found) if (found := commit()) else None),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": dict(hardware()),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda if torch.cuda.is_available() else None,
            "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        },
        # More than this script's threads: somebody else was there, and times are upper values.
        "load_average": list(os.getloadavg()),
        **results,
    }


def write(path: Path | None, tree: dict[str, Any]) -> None:
    if path is not None:
        write_json(path, tree)


if __name__ == "__main__":
    serve()

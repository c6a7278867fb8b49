"""One update of a method, from gathered pairs to loss terms.

A step of PoT-GAN starts more than a thousand small pieces of work (kernels) on a GPU. Starting them takes the host longer than the
GPU needs for them. So on one GPU the work of a step is recorded once, as a CUDA graph, and the graph is then started as a whole at
every iteration. Nothing else is different: the kernels and their order are those of the recorded step.
"""

from __future__ import annotations

import torch

from potgan.common.progress import say
from potgan.data.batches import Gathered
from potgan.methods.method import Method

#: The number of updates before one is recorded. In these, networks are compiled, the algorithms of convolutions are chosen, and the
#: optimisers make their state. They are updates like all others, so a recorded training is the same training.
UPDATES_BEFORE = 3


class Update:
    """Does the updates of one training on `method`, in the order of its iterations.

    recorded: whether the work of a step has become a CUDA graph. `training.compile: never` prevents that, and so do several
    processes. A graph goes on with the tensors that it was recorded with, so a state that is loaded into the method ends it, and
    another one is recorded. So does the next stage of a method that trains in stages.
    """

    def __init__(self, method: Method) -> None:
        self._method = method
        self._begin(0)
        alone = method.processes.count == 1 and method.settings.training.compile != "never"
        # The updates before the recording run on the stream that records, as torch asks for it.
        self._stream = torch.cuda.Stream(method.device) if method.device.type == "cuda" and alone else None

    def __call__(self, parts: list[Gathered], iteration: int) -> dict[str, torch.Tensor]:
        """Update the method by one batch, and return its loss terms. parts: the batch in equal parts. iteration: from 0."""
        if self._stream is None:
            return self._unrecorded(parts, iteration)
        if (self._loads, self._phase) != (self._method.loads, self._method.phase(iteration)):
            self._begin(iteration)
        if self._to_come:
            self._to_come -= 1
            return self._on_the_side(parts, iteration)
        if not self.recorded and not self._record(parts):
            return self._unrecorded(parts, iteration)
        return self._replayed(parts, iteration)

    def _begin(self, iteration: int) -> None:
        self.recorded = False
        # The memory of an earlier stage's graph is free before the next stage needs its own.
        self._graph = self._inputs = self._terms = None
        self._to_come, self._loads, self._phase = UPDATES_BEFORE, self._method.loads, self._method.phase(iteration)

    def _unrecorded(self, parts: list[Gathered], iteration: int) -> dict[str, torch.Tensor]:
        return self._method.update([part.on(self._method.device) for part in parts], iteration)

    def _on_the_side(self, parts: list[Gathered], iteration: int) -> dict[str, torch.Tensor]:
        current = torch.cuda.current_stream(self._method.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            terms = self._unrecorded(parts, iteration)
        current.wait_stream(self._stream)
        return terms

    def _replayed(self, parts: list[Gathered], iteration: int) -> dict[str, torch.Tensor]:
        for inputs, part in zip(self._inputs, parts, strict=True):
            for name, values in part.raw.items():
                inputs.raw[name].copy_(values, non_blocking=True)
        self._method.begin(iteration)
        self._graph.replay()
        self._method.finish()
        # The next replay overwrites the graph's output, so it is copied.
        return dict(zip(self._names, self._terms.clone().unbind(), strict=True))

    def _record(self, parts: list[Gathered]) -> bool:
        """Record the work of a step without doing it. Return False, and say why, if this machine cannot record it."""
        device = self._method.device
        self._inputs = [part.copied(device) for part in parts]
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the device meanwhile, such as the one that pins the next batch.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                terms = self._method.step([part.on(device) for part in self._inputs])
                self._names, self._terms = list(terms), torch.stack(list(terms.values()))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            say(f"a step cannot be recorded as a CUDA graph, and training goes on without it, more slowly ({reason})")
            self._stream = None
            return False
        self._graph = graph
        self.recorded = True
        return True

"""What making batches costs, and what would make it cheaper."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

DECODING = "reading and decoding images of"


def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Clock:
    """A moment in the life of a thread: the time, the processor time of the thread, the bytes it has read from disks."""

    time: float
    processor: float
    read: int

    @classmethod
    def now(cls) -> Clock:
        """The moment of the call, for the thread that calls."""
        read = 0
        if resource is not None and hasattr(resource, "RUSAGE_THREAD"):
            read = 512 * resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
        return cls(time.perf_counter(), time.thread_time(), read)


class Effort:
    """Adds up what the threads of a loader do. Safe to use from several threads.

    Attributes:
        busy, processor: seconds that all threads together have worked, and seconds that they had a processor.
        read: bytes that came from a disk.
        decoding, transforming: the parts of ``busy`` for decoding records (with reading and resizing) and for transforming
            images.
        images, pixels: how many images were decoded, and their pixels altogether.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = time.perf_counter()
        self.busy = self.processor = self.decoding = self.transforming = 0.0
        self.read = self.images = self.pixels = 0

    def worked(self, since: Clock) -> None:
        """The calling thread has worked since then."""
        now = Clock.now()
        with self._lock:
            self.busy += now.time - since.time
            self.processor += now.processor - since.processor
            self.read += now.read - since.read

    def made(self, images: int, pixels: int, decoding: float, transforming: float) -> None:
        """So many images, with so many pixels, took so many seconds."""
        with self._lock:
            self.decoding += decoding
            self.transforming += transforming
            self.images += images
            self.pixels += pixels

    def describe(self, threads: int, crop: int, on_host: bool, work: str = DECODING, advice: str = "") -> str:
        """Say in a sentence or two where the time goes and what would help.

        Args:
            threads: the number of threads.
            crop: the side of what is cut from the images; 0 for whole images.
            on_host: the threads make floats; the device does not transform.
            work: what is done to records, up to their number of pixels.
            advice: what would make that less; empty if smaller or raw records would.
        """
        share = self.busy / max((time.perf_counter() - self._since) * threads, 1e-9)
        does = f"{threads} thread{'s' * (threads != 1)}, busy {min(share, 1):.0%} of the time"
        helps = []
        if share < 0.5:
            helps.append("a larger prefetch (data_param), if batches take unequal times")
        elif threads < processors():
            helps.append(f"more threads (source.threads; this process may use {processors()} processors)")
        if self.busy and self.processor < 0.5 * self.busy:
            why = "the disk" if self.read else "a processor or a file system"
            does += f", {1 - self.processor / self.busy:.0%} of that waiting for {why}"
            helps.append(
                "a faster disk, or enough memory to keep the records in" if self.read else "fewer other threads at work"
            )
        if self.images and self.decoding > 0.4 * self.busy:
            side = (self.pixels / self.images) ** 0.5
            does += f", {self.decoding / self.busy:.0%} of it {work} {side:.0f}² pixels"
            if not advice and crop and side > 1.5 * crop:
                advice = f"smaller pictures (caffe-convert-imageset --shorter_edge {round(1.15 * crop)}: the layer keeps {crop}²)"
            helps.append(advice or "raw records instead of encoded ones (caffe-convert-imageset without --encoded)")
        if self.images and self.transforming > 0.3 * self.busy:
            does += f", {self.transforming / self.busy:.0%} of it cropping and subtracting the mean"
        if on_host and (share < 0.5 or self.transforming > 0.3 * self.busy):
            helps.append("--device-transform, where the net is on a GPU: a quarter of the bytes to make and to send")
        return f"{does}. What helps: {'; '.join(helps) or 'a faster processor for the data'}"

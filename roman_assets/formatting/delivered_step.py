"""Publishing L1 of an exposure that was formatted elsewhere, byte for byte as it was delivered."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from roman_assets.archive.durability import disk_space
from roman_assets.archive.store import sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.receipt import DeliveredFile, Receipt
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName
from roman_assets.products.origin import Origin
from roman_assets.publishing.attempt import StepAttempt
from roman_assets.publishing.scratch import scratch_directory
from roman_assets.publishing.step import Output, StepResult, publish_step, reusable
from roman_assets.records.record import ProductInput, WorkFailure, fingerprint
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct


def publish_delivered(root: DataRoot, receipt: Receipt, attempt: StepAttempt) -> StepResult:
    """Publish the L1 files of an exposure that were delivered, those that are not there yet.

    A file that was changed or taken away since it arrived fails alone.

    Parameters
    ----------
    root
        The installation.
    receipt
        Of an exposure whose L1 is delivered.
    attempt
        The attempt it is part of.

    Returns
    -------
    StepResult
        What was published, was there already and failed.

    Raises
    ------
    PassingFaultError
        If the disk is full.
    """
    deliveries = {file.name: _Delivery(receipt, file) for file in receipt.files}
    kept = reusable(root, {name: one.fingerprint for name, one in deliveries.items()})
    outputs: list[Output] = []
    failures: list[WorkFailure] = []
    with scratch_directory(root, attempt.partition) as scratch, disk_space(scratch):
        for name, delivery in deliveries.items():
            if name in kept:
                continue
            try:
                outputs.append(delivery.output(scratch))
            except BadInputError as error:
                failures.append(
                    WorkFailure(
                        file_set=str(delivery.name.file_set),
                        error=type(error).__name__,
                        message=str(error),
                    )
                )
        return publish_step(
            root,
            step=Step.FORMATTING,
            partition=attempt.partition,
            outputs=outputs,
            failures=failures,
            reused=kept.values(),
            attempt=attempt,
        )


def published_before(root: DataRoot, receipt: Receipt) -> tuple[RegisteredProduct, ...]:
    """Return delivered L1 in the archive of an exposure of which nothing is in the landing area.

    Parameters
    ----------
    root
        The installation.
    receipt
        What is in of the exposure; if it is complete, nothing is returned.
    """
    if receipt.complete:
        return ()
    with Registry(root) as registry:
        found = registry.products.find(exposure=str(receipt.exposure))
        names = found[found["origin"] == Origin.DELIVERED]["name"]
        return tuple(registry.generations.current(names).values())


@dataclass(frozen=True)
class _Delivery:
    """One delivered file and what is recorded of it."""

    receipt: Receipt
    file: DeliveredFile

    @property
    def name(self) -> ProductName:
        return ProductName.parse(self.file.name)

    @property
    def inputs(self) -> tuple[ProductInput, ...]:
        return (ProductInput(name=f"{self.receipt.exposure}_l1", sha256=self.file.sha256),)

    @property
    def fingerprint(self) -> str:
        return fingerprint(Step.FORMATTING, self.inputs, None, {})

    @property
    def facts(self) -> Mapping[str, object]:
        receipt = self.receipt
        return {
            "survey": str(receipt.survey),
            "exposure_type": str(receipt.exposure_type),
            "nexposures": receipt.nexposures,
            "origin": Origin.DELIVERED.value,
        }

    def output(self, scratch: Path) -> Output:
        """Copy the file, since the one in the landing area is somebody else's."""
        copy = scratch / self.file.name
        try:
            shutil.copyfile(self.file.path, copy)
        except (FileNotFoundError, PermissionError) as error:
            raise BadInputError(
                self.file.path, "file",
                f"it is not there to be read since it arrived: {error.strerror}", _AGAIN,
            ) from error  # fmt: skip
        if sha256_of(copy) != self.file.sha256:
            raise BadInputError(
                self.file.path, "file", "it was changed in place since it arrived", _AGAIN
            )
        return Output(
            self.name, copy, self.fingerprint, inputs=self.inputs, metadata=dict(self.facts)
        )


_AGAIN = "deliver it again, by a rename"

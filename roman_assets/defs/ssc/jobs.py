"""The jobs that have a command compute in the place of the SSC, by Dagster Pipes (R12).

The command delivers like the SSC does, and what it delivers is taken in like what comes from
outside. So the graph does not know the difference.

A command that fails may succeed later, so its step is tried again as for any passing fault, and
then requested again by `roman_assets.defs.ssc.delivery_sensor`. It says that it will not, by the
status `UNUSABLE_INPUT`; then, and when it leaves no notification, a person has to act. Either way a
new hand-over asks for another run.
"""

import os
import re
from collections.abc import Iterator, Mapping

import dagster as dg

from roman_assets.defs.lib.dagster_internals import DagsterPipesExecutionError
from roman_assets.defs.lib.partition_work import RETRY_POLICY, as_failure, mark_bad_input
from roman_assets.defs.lib.partitions import PARTITIONS
from roman_assets.defs.lib.resources import Installation
from roman_assets.errors import BadInputError
from roman_assets.products.kind import INTAKE_STEPS, Step

COMMAND_POOL = "ssc_command"
"""Commands are run one after the other, unless the pool's limit is raised."""

UNUSABLE_INPUT = os.EX_DATAERR
"""The status (65) by which a command says that trying again will fail again."""

_STATUS = re.compile(r"failed with code (-?\d+)")


def _command_job(step: Step) -> dg.JobDefinition:
    @dg.op(
        name=f"compute_{step}",
        out=dg.Out(dg.Nothing),
        pool=COMMAND_POOL,
        retry_policy=RETRY_POLICY,
    )
    def compute(
        context: dg.OpExecutionContext,
        installation: dg.ResourceParam[Installation],
        pipes: dg.ResourceParam[dg.PipesSubprocessClient],
    ) -> Iterator[dg.Output[None]]:
        """Run the command for what waits, and put what it leaves into the exchange."""
        try:
            run_command(context, installation, pipes, step)
        except BadInputError as error:
            mark_bad_input(context, error)
            raise as_failure(error) from error
        yield dg.Output(None)

    @dg.job(
        name=f"{step}_command",
        partitions_def=PARTITIONS[step],
        executor_def=dg.in_process_executor,
        description="Computes in the place of the SSC, by the command that ssc.toml names (R12).",
    )
    def command() -> None:
        compute()

    return command


def run_command(
    context: dg.OpExecutionContext,
    installation: Installation,
    pipes: dg.PipesSubprocessClient,
    step: Step,
) -> None:
    """Run the command for the partition of a run, if it still waits.

    Raises
    ------
    DagsterPipesExecutionError
        If the command fails; nothing is delivered.
    BadInputError
        If it ends with `UNUSABLE_INPUT`, leaves no notification, or none is configured rightly.
    """
    from roman_assets.publishing.scratch import scratch_directory
    from roman_assets.ssc.command import commission, deliver

    root, partition = installation.root, context.partition_key
    with scratch_directory(root, partition) as scratch:
        work = commission(root, step, partition, scratch)
        if work is None:
            context.log.info(f"{partition}: nothing waits for a command")
            return
        context.log.info(f"{partition}: {' '.join(work.command)}")
        try:
            pipes.run(
                context=context,
                command=list(work.command),
                env={**installation.environment, **work.environment},
                extras=dict(work.environment),
                cwd=str(scratch),
            )
        except DagsterPipesExecutionError as error:
            if _status(error) != UNUSABLE_INPUT:
                raise
            raise BadInputError(
                partition, "command", f"{work.command[0]} says that it cannot use what was handed "
                f"over (status {UNUSABLE_INPUT})",
                "see its output in the log of the run; correct the cause and re-execute the run",
            ) from error  # fmt: skip
        deliver(root, work)
        context.log.info(f"{partition}: delivered as {work.delivery}")


def _status(error: DagsterPipesExecutionError) -> int | None:
    # Dagster tells the status in the message only
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


COMMAND_JOBS: Mapping[Step, dg.JobDefinition] = {step: _command_job(step) for step in INTAKE_STEPS}
"""By the step that takes in what the command delivers."""

"""Existing products that routine work keeps, and lost ones that it restores (R7, R13, R15).

Nobody asked a routine run to replace anything: a sensor did, since something is missing. So a
product of the present inputs stays, whatever context and software are the best today. A lost one is
restored with the context on its record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from roman_assets.access import Role
from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.lifecycle import State, is_versioned
from roman_assets.products.name import ProductName
from roman_assets.references.context import require_context
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.software import deciding_software


@dataclass(frozen=True)
class Standing:
    """The existing products of a file set that were made from its present inputs.

    Parameters
    ----------
    kept
        The available products by name whose files are there.
    leader
        The newest generation of the product that the others follow (R14), in any state; None if
        it was never made from these inputs.
    """

    kept: Mapping[str, RegisteredProduct] = field(default_factory=dict)
    leader: RegisteredProduct | None = None

    @property
    def is_led(self) -> bool:
        """Whether the leader is there, so that what follows it must fit it."""
        return self.leader is not None and self.leader.name in self.kept

    @property
    def is_over(self) -> bool:
        """Whether the file set was removed after its time (R13), or withdrawn by a person.

        It does not come back, unless it was withdrawn from a release that nobody has seen.
        """
        leader = self.leader
        if leader is None:
            return False
        is_hidden = is_versioned(leader.product_name) and leader.access is not Role.PUBLIC
        withdrawn = leader.is_withdrawn_for_good and not is_hidden
        return leader.state is State.REMOVED or withdrawn

    def require_possible(self, *, same_work: bool) -> None:
        """Refuse to add products that would not fit the leader, or that cannot be made.

        Parameters
        ----------
        same_work
            Whether the installed software would make the leader as it was made.

        Raises
        ------
        BadInputError
            If the leader was made by other software, or CRDS does not have its context.
        """
        if self.leader is None:
            return
        if self.is_led and not same_work:
            step, recorded = self.leader.product_name.kind.step, self.leader.software
            deciding = deciding_software(step, recorded).items()
            versions = ", ".join(f"{name} {one}" for name, one in deciding)
            raise BadInputError(
                self.leader.name,
                "software",
                f"what follows it is missing, and it was made with {versions}; a run that nobody "
                "asked for does not replace it (R15)",
                "materialize the partition, or propose it for reprocessing as a whole",
            )
        if self.leader.context is not None:
            require_context(self.leader.context)


NOTHING = Standing()
"""Nothing of a file set stays, as nothing was made of its inputs or somebody wants all of it."""


def standing_of(
    root: DataRoot, names: Iterable[ProductName], is_same: Callable[[RegisteredProduct], bool]
) -> dict[str, Standing]:
    """Look up what there is of file sets, by file set; records that wait are folded first.

    Parameters
    ----------
    root
        The installation.
    names
        All products of the file sets.
    is_same
        Whether a generation was made from the present inputs.
    """
    Engine(root).fold()
    archive = Archive.of(root)
    wanted = {str(name): name for name in names}
    with Registry(root) as registry:
        found = registry.generations.of(wanted)
    kept: dict[str, dict[str, RegisteredProduct]] = {}
    leaders: dict[str, RegisteredProduct] = {}
    for name, generations in found.items():
        file_set = str(wanted[name].file_set)
        newest = next((one for one in generations if one.is_available), generations[-1])
        if not is_same(newest):
            continue
        if wanted[name].leader is None:
            leaders[file_set] = newest
        if newest.is_available and archive.has_blob(newest.sha256, newest.size):
            kept.setdefault(file_set, {})[name] = newest
    return {
        file_set: Standing(kept.get(file_set, {}), leaders.get(file_set))
        for file_set in {str(name.file_set) for name in wanted.values()}
    }

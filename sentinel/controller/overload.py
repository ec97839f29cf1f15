"""Which layers do with what is left of their groups more than the others do. Knows nothing of losses."""

from collections.abc import Collection, Mapping
from statistics import median

from sentinel.controller.measurements import Measurements

# Times the median layer's strain, from which a layer is overloaded. A layer that has lost a third of its groups more
# than the median layer is there, and so is one whose survivors attend to a third less. Strains of dense layers, and of
# layers that were cut evenly, lie within a quarter of their median on the built-in models.
OVERLOADED = 1.5
# Groups that the cut can choose among, for each that goes: fewer would leave it no choice but the protected layers.
CHOICE = 2


def strains(now: Measurements, dense_entropy: Mapping[int, Mapping[int, float]]) -> dict[int, float]:
    """Layer → how many dense groups' work each group that is left does; about 1 in a dense model.

    With n groups in the dense layer, shares u_g of the survivors in its output's energy, scaled to sum 1, and mean
    attention entropies H_g, D_g in the dense model: n Σ u_g² · (Σ D_g / Σ H_g). 1 / Σ u² is the number of groups that
    really work (inverse participation ratio), and those that take on others' work attend to less: on the built-in
    models entropy fell by up to a quarter with the depth of a healed cut. Layers without groups are left out: those
    were emptied on purpose. n is counted in D: groups that came beyond it are no dense ones.
    """
    return {
        layer: (len(dense_entropy.get(layer, ())) or len(shares) + now.removed.get(layer, 0))
        * _concentration(shares)
        * _narrowing(now.entropy[layer], dense_entropy.get(layer, {}))
        for layer, shares in now.utilisation.items()
        if shares
    }


def overloaded(now: Measurements, strain: Mapping[int, float]) -> list[int]:
    """Layers that have lost groups and strain `OVERLOADED` times as much as the median layer."""
    if not strain:
        return []
    threshold = OVERLOADED * median(strain.values())
    return sorted(layer for layer, value in strain.items() if value >= threshold and now.removed.get(layer, 0))


def leave_a_choice(now: Measurements, *, protected: Collection[int], progress: float, grow: float) -> bool:
    """Whether the cut has `CHOICE` times the groups that it needs, outside the protected layers.

    What the spec wants to stay stays. How many make up the way to the target is told from those that are gone.
    """
    gone = sum(now.removed.values())
    dense = gone + sum(map(len, now.utilisation.values()))
    needed = gone * (progress - now.progress) / now.progress + grow * dense if now.progress else dense
    kept = {*now.protected_layers, *protected}
    counts = [len(groups) for layer, groups in now.utilisation.items() if layer not in kept]
    free = sum(max(0, count - now.minimum_per_layer) for count in counts)
    return free >= CHOICE * needed


def _concentration(shares: Mapping[int, float]) -> float:
    """Σ u², of shares scaled to sum 1; those of a layer that puts out nothing count as equal."""
    total = sum(shares.values())
    return sum((share / total) ** 2 for share in shares.values()) if total > 0 else 1 / len(shares)


def _narrowing(entropy: Mapping[int, float], dense: Mapping[int, float]) -> float:
    """How much more the groups attended to in the dense model; of those that it had."""
    known = [group for group in entropy if group in dense]
    now = sum(entropy[group] for group in known)
    return sum(dense[group] for group in known) / now if now > 0 else 1.0

"""Which output channels of kernels go together, and what else has to go with them."""

import numpy as np

from kprune.channels.numbers import NONE, connected
from kprune.channels.tracing import trace
from kprune.channels.value import Value
from kprune.granularity import Tie
from kprune.layout import layout_of


class Coupling:
    """The channels of a graph, and the weights that each of them reaches.

    What can go together is a group. A group may go if nothing in the graph keeps it
    and if all kernels that make its channels are ranked, that is, if they have masks
    on their output channels.

    Where a kernel makes channels along several axes, as those of an attention's queries
    make heads and places within them, it is ranked along the last that may go: a place
    goes from all heads at once. So what masks take away is whole channels, and never
    a place of one head alone, which nothing could cut out.

    Args:
        model: A built Functional or Sequential model, pruned or not.

    Example:
    >>> import keras
    >>> layers = [keras.layers.Dense(n, name=f"dense_{n}") for n in (4, 3)]
    >>> model = keras.Sequential([keras.Input((2,)), *layers])
    >>> kernel = layers[0].kernel
    >>> coupling = Coupling(model)
    >>> coupling.ties([kernel])[id(kernel)].units
    array([0, 1, 2, 3])
    >>> found = coupling.followers([kernel])
    >>> [(v.name, found[id(v)]) for v in model.weights if id(v) in found]
    [('bias', (4,)), ('kernel', (4, 1))]
    """

    def __init__(self, model):
        self._tracing = trace(model)
        self._groups = self._tracing.channels.groups()
        self._number = int(self._groups.max()) + 1
        self._reasons = self._tracing.channels.reasons()
        self._origins = list(self._made_first())
        self._together = list(self._found_together())
        self._places = {}
        self._ties = None, {}

    def _made_first(self):
        """Yields weights with the groups of channels that none before them makes."""
        seen = np.zeros(len(self._groups), bool)
        seen[NONE] = True
        for weight in self._tracing.weights.values():
            for ids in weight.value.maps:
                if weight.made.intersection(Value.axes(ids)) and not seen[ids].all():
                    seen[ids] = True
                    yield weight, np.unique(self._groups[ids])

    def _found_together(self):
        """Yields the groups of each tensor and weight, those that lie side by side."""
        values = list(self._tracing.values.values())
        values += [weight.value for weight in self._tracing.weights.values()]
        maps = {id(ids): ids for value in values for ids in value.maps}
        found = [np.unique(self._groups[ids]) for ids in maps.values()]
        yield from {groups.tobytes(): groups for groups in found}.values()

    def _line(self, variable):
        """Returns which map of a kernel says by what channels it is ranked.

        Returns:
            Tuple of the number of the map and the group of each output channel, an
            int array; or `None` if no map lies along the output channels alone.
        """
        if id(variable) not in self._places:
            self._places[id(variable)] = self._find_line(variable)
        return self._places[id(variable)]

    def _find_line(self, variable):
        weight = self._tracing.weights.get(id(variable))
        if weight is None:
            return None
        layout = layout_of(self._tracing.owners[id(variable)], variable)
        found = [(n, self._groups[ids]) for n, ids in weight.of_outputs(layout)]
        stay = [NONE, *self._reasons]
        free = [place for place in found if not np.isin(place[1], stay).all()]
        return (free or found or [None])[-1]

    def _may_go(self, ranked):
        """Returns which groups may go, a bool array.

        Args:
            ranked: Sequence of Keras variables, the kernels that are.
        """
        lines = {id(v): self._line(v)[1] for v in ranked if self._line(v)}
        may_go = np.zeros(self._number, bool)
        for line in lines.values():
            may_go[line] = True
        may_go[[NONE, *self._reasons]] = False
        for weight, groups in self._origins:
            if id(weight.variable) not in lines:
                may_go[groups] = False
        return may_go

    def ties(self, ranked):
        """Returns how kernels hang together by their output channels.

        Args:
            ranked: Sequence of Keras variables, the kernels that are.

        Returns:
            Dict from the id of a kernel to its `Tie`. Kernels of which the graph says
            nothing are missing, as are those whose channels are the model's outputs.
        """
        known = tuple(map(id, ranked))
        if self._ties[0] != known:
            self._ties = known, self._find_ties(ranked)
        return self._ties[1]

    def _find_ties(self, ranked):
        may_go = self._may_go(ranked)
        lines = {
            id(v): self._line(v)[1]
            for v in ranked
            if self._line(v) and not self.is_of_outputs(v)
        }
        families, members = connected(lines.values(), self._number), {}
        for line in lines.values():
            members.setdefault(families[line.max()], []).append(line)
        guards = self._guards(families, may_go)
        parts = {}
        for family, own in members.items():
            groups = np.setdiff1d(np.concatenate(own), [NONE])
            some = (np.searchsorted(groups, one) for one in guards.get(family, ()))
            parts[family] = groups, ~may_go[groups], tuple(some)
        ties = {}
        for key, line in lines.items():
            family = families[line.max()]
            groups, stays, guards = parts[family]
            units = np.where(line == NONE, -1, np.searchsorted(groups, line))
            name = "channels", id(self), int(family)
            ties[key] = Tie(name, -1, len(groups), units, stays, guards)
        return ties

    def is_of_outputs(self, kernel):
        """Tells whether all channels of a kernel are kept for the model's outputs."""
        place = self._line(kernel)
        return place is not None and all(
            any(reason.kind == "output" for reason in self._reasons.get(group, ()))
            for group in np.unique(place[1]).tolist()
        )

    def _guards(self, families, may_go):
        """Returns the groups of which some must stay, by family; see `Tie`."""
        found = {}
        for groups in self._together:
            own = np.unique(families[groups])
            if len(own) == 1 and may_go[groups].all():
                found.setdefault(own[0], []).append(groups)
        return found

    def dense(self, ranked):
        """Returns why kernels keep all of their channels.

        Args:
            ranked: Sequence of Keras variables, the kernels that shall be ranked.

        Returns:
            Dict from the id of each kernel without a channel that may go to a string.
        """
        may_go = self._may_go(ranked)
        found = {}
        for variable in ranked:
            place = self._line(variable)
            if place is None and self._makes_one(variable):
                found[id(variable)] = "it makes one channel, and can't be without"
            elif place and not may_go[place[1]].any():
                found[id(variable)] = self._why(place[1], ranked)
        return found

    def _makes_one(self, variable):
        """Tells whether the graph knows of a kernel that it has a single output."""
        if not self.reaches(variable):
            return False
        layout = layout_of(self._tracing.owners[id(variable)], variable)
        shape = tuple(variable.shape)
        return layout.canonical(np.broadcast_to(NONE, shape)).shape[-1] == 1

    def _why(self, line, ranked):
        for group in np.unique(line).tolist():
            if group in self._reasons:
                return f"its channels can't be removed: {self._reasons[group][0]}"
        ids = {id(variable) for variable in ranked if self._line(variable)}
        partner = next(
            weight
            for weight, groups in self._origins
            if id(weight.variable) not in ids and np.isin(groups, line).any()
        )
        name = self._tracing.names[id(partner.layer)]
        why = "not pruned" if partner.variable.trainable else "frozen"
        return f"its channels go together with those of {name!r}, which is {why}"

    def followers(self, ranked):
        """Returns what has to be masked beside the kernels' output channels.

        Args:
            ranked: Sequence of Keras variables, the kernels that are.

        Returns:
            Dict from the id of each weight that has channels which may go, other than
            those by which it is ranked, to the shape of a mask that can be broadcast
            against it, a tuple of ints.
        """
        may_go, found = self._may_go(ranked), {}
        ranked = {id(variable) for variable in ranked}
        for key, weight in self._tracing.weights.items():
            maps = self._other_maps(weight, key in ranked)
            maps = [m for m in maps if may_go[self._groups[m]].any()]
            if maps and self._is_learnt(weight.variable):
                found[key] = np.broadcast_shapes(*(m.shape for m in maps))
        return found

    def _is_learnt(self, variable):
        """Tells whether a weight is one that gradients change, no statistic."""
        owner = self._tracing.owners[id(variable)]
        return any(variable is one for one in owner._trainable_variables)

    def _other_maps(self, weight, is_ranked):
        """Returns the maps of a weight without that by which it is ranked."""
        line = self._line(weight.variable) if is_ranked else None
        return [m for i, m in enumerate(weight.value.maps) if not line or i != line[0]]

    def left(self, masks, ranked):
        """Returns which groups are left, a bool array.

        Args:
            masks: Dict from the id of each ranked kernel to its mask, a bool array of
                its shape.
            ranked: Sequence of Keras variables, the kernels that are.
        """
        gone = np.zeros(self._number, bool)
        kept = ~self._may_go(ranked)
        for variable in ranked:
            place = self._line(variable)
            if place:
                layout = layout_of(self._tracing.owners[id(variable)], variable)
                mask = layout.canonical(masks[id(variable)])
                is_left = mask.any(tuple(range(mask.ndim - 1)))
                gone[place[1]] = True
                kept[place[1][is_left]] = True
        return kept | ~gone

    def reaches(self, variable):
        """Tells whether a variable has channels of this graph."""
        return id(variable) in self._tracing.weights

    def mask(self, variable, shape, is_ranked, left):
        """Returns the mask of what follows.

        Args:
            variable: Keras variable, one of `followers`.
            shape: Tuple of ints, that of its mask.
            is_ranked: Bool, whether it is a kernel that is ranked itself.
            left: Bool array by group, what `left` returns.

        Returns:
            Bool array of that shape.
        """
        mask = np.ones(shape, bool)
        weight = self._tracing.weights[id(variable)]
        for ids in self._other_maps(weight, is_ranked):
            part = left[self._groups[ids]]
            if not part.all():
                mask &= part
        return mask

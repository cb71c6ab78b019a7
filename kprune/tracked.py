"""`Tracked`: variables beside the masks that only some methods need."""

import keras
import numpy as np

from kprune.registry import register


@register("layers")
class Tracked(keras.Layer):
    """Variables by name, saved with the model, made when a method asks for them.

    A file restores them whether or not the model that loads it has them yet, and a
    file without them leaves them as they are.

    Example:
    >>> tracked = Tracked(name="tracked")
    >>> tracked.hold("shadow_0", np.zeros(3, "float32")).dtype
    'float32'
    >>> list(tracked.variables_by_name)
    ['shadow_0']
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.built = True
        # Keras tracks the variables themselves, and would track this dict as well.
        object.__setattr__(self, "variables_by_name", {})

    def hold(self, name, value):
        """Makes a variable, or returns the one that is there.

        Args:
            name: String, what the variable is called in this layer.
            value: Array, what it holds at first.

        Returns:
            Keras variable that is not trained.
        """
        known = self.variables_by_name
        if name not in known:
            value = np.asarray(value)
            known[name] = self.add_weight(
                shape=value.shape,
                dtype=value.dtype.name,
                initializer=lambda shape, dtype: keras.ops.convert_to_tensor(value),
                trainable=False,
                aggregation="only_first_replica",
                name=name,
            )
            setattr(self, name, known[name])  # for tf.train.Checkpoint
        return known[name]

    def get(self, name):
        """Returns the variable of a name, or `None`."""
        return self.variables_by_name.get(name)

    def release(self, variable):
        """Gives a variable up, so that it is saved no longer.

        Args:
            variable: What `hold` has returned.
        """
        self._untrack_variable(variable)
        del self.variables_by_name[variable.name]
        # That of `keras.Layer` would collect all garbage of the process each time.
        super(keras.Layer, self).__delattr__(variable.name)

    def hold_like(self, other):
        """Makes the variables that another such layer has."""
        for name, variable in other.variables_by_name.items():
            self.hold(name, variable)

    def save_own_variables(self, store):
        """Saves the variables by name."""
        for name, variable in self.variables_by_name.items():
            store[name] = variable

    def load_own_variables(self, store):
        """Loads the variables that a file has; makes those that are missing."""
        names = store.keys()
        for name in names:
            self.hold(name, store[name]).assign(store[name])

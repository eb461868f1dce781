"""Keras models on TensorFlow as networks: their dropouts take the masks of a draw, all else runs as in inference."""

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import has_torch_function_unary

from kipoi_deepmr.errors import ModelError
from kipoi_deepmr.model.function import OpaqueNetwork, device_of, to_arrays, to_tensors
from kipoi_deepmr.uncertainty import gaussian_dropout

_PACKAGES = ("keras", "tf_keras")
_SPATIAL = ("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
_DROPOUTS = ("Dropout", *_SPATIAL, "GaussianDropout", "AlphaDropout")
_SELU_SATURATION = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946

_FUNCTIONS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "elementwise": F.dropout,
    "alpha": F.alpha_dropout,
    "gaussian": gaussian_dropout,
}
Hook = Callable[[Any, Any], Any]


@contextmanager
def keras_2() -> Iterator[None]:
    """Let what imports `keras` get Keras 2 (the package tf_keras), which reads models that Keras 3 cannot."""
    import tf_keras

    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "keras"}
    sys.modules["keras"] = tf_keras
    for name in ("models", "layers", "backend", "activations", "regularizers", "constraints", "initializers"):
        sys.modules[f"keras.{name}"] = getattr(tf_keras, name)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "keras"]:
            del sys.modules[name]
        sys.modules.update(hidden)


def is_keras(model: Any) -> bool:
    """Tell whether an object is a Keras model (Keras 3 on TensorFlow, or tf-keras)."""
    return _package_of(model) is not None


@dataclass(frozen=True)
class Noise:
    """A dropout in the graph for one batch size.

    Attributes
    ----------
    kind : str
        ``elementwise``, ``gaussian`` or ``alpha``.
    p : float
        Probability to drop.
    shape : tuple of int
        Shape of its mask, batch included; length 1 where units are dropped together.
    """

    kind: str
    p: float
    shape: tuple[int, ...]

    def draw(self, device: torch.device) -> tuple[Tensor, bool]:
        """Return what dropout makes of ones, and whether it does anything; outside a draw it does not."""
        ones = torch.ones(self.shape, device=device)
        made: Tensor = _FUNCTIONS[self.kind](ones, self.p)
        return made, made is not ones

    def apply(self, x: Any, made: Any) -> Any:
        """Do to an activation of the graph what dropout did to ones."""
        import tensorflow as tf

        if self.kind != "alpha":
            return x * tf.cast(made, x.dtype)
        # Klambauer 2017, as Keras and torch define it.
        scale = ((1.0 - self.p) * (1.0 + self.p * _SELU_SATURATION**2)) ** -0.5
        shift = -scale * _SELU_SATURATION * self.p
        kept = tf.cast(made > shift, x.dtype)
        return scale * (x * kept + _SELU_SATURATION * (1.0 - kept)) + shift


class KerasFunction(OpaqueNetwork):
    """A Keras model as a network that takes and returns tensors.

    Layers run as in inference, so that BatchNormalization keeps its averages. The dropout layers ask torch's functions
    for their masks, so that draws reach them as they reach any dropout of a torch network. One graph is made for each
    batch size, and a second one without dropout.

    Parameters
    ----------
    model
        Keras model, Sequential or functional.

    Raises
    ------
    ModelError
        If it runs on another backend than TensorFlow.
    """

    why_no_dropout = "It is a Keras model without a Dropout, SpatialDropout, GaussianDropout or AlphaDropout that runs."

    def __init__(self, model: Any) -> None:
        super().__init__()
        backend = _backend_of(model)
        if backend != "tensorflow":
            raise ModelError(
                f"the Keras model runs on {backend}, needed is TensorFlow: set KERAS_BACKEND=tensorflow before Python starts"
            )
        self._keras = model
        self._graphs: dict[Any, tuple[list[Noise], Callable[..., Any], Callable[..., Any]]] = {}

    def forward(self, inputs: Any) -> Any:
        """Predict.

        Parameters
        ----------
        inputs
            A tensor, a list or a dict of tensors, batch first.

        Returns
        -------
        tensor, or list or dict of tensors
        """
        arrays, device = to_arrays(inputs), device_of(inputs)
        noises, plain, thinned = self._graph(arrays)
        output = None
        if noises and has_torch_function_unary(torch.ones(())):
            made, active = zip(*(noise.draw(device) for noise in noises), strict=True)
            if any(active):
                output = thinned(arrays, [one.cpu().numpy() for one in made])
        if output is None:
            output = plain(arrays)
        return to_tensors(_numpy(output), device)

    def weights_digest(self) -> str:
        """Return the sha256 of the model's weights."""
        digest = hashlib.sha256()
        for array in self._keras.get_weights():
            digest.update(f"{array.dtype}:{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def hidden_dropouts(self) -> list[str]:
        """Return the layers whose dropout runs inside them, where no mask can be fixed: recurrent ones."""
        return [
            layer.name
            for layer in _layers(self._keras)
            if any(
                isinstance(getattr(layer, rate, None), float) and getattr(layer, rate) > 0
                for rate in ("dropout", "recurrent_dropout")
            )
            and not _is_dropout(layer)
        ]

    def _graph(self, arrays: Any) -> tuple[list[Noise], Callable[..., Any], Callable[..., Any]]:
        import tensorflow as tf

        specs = tf.nest.map_structure(lambda array: tf.TensorSpec(array.shape, array.dtype), arrays)
        key = str(specs)
        if key not in self._graphs:
            found: list[Noise] = []

            def note(layer: Any, x: Any) -> Any:
                if float(layer.rate) > 0:
                    found.append(_noise(layer, x))
                return x

            def predict(inputs: Any) -> Any:
                return self._keras(inputs, training=False)

            def predict_thinned(inputs: Any, made: Sequence[Any]) -> Any:
                parts = iter(zip(found, made, strict=True))

                def apply(layer: Any, x: Any) -> Any:
                    if float(layer.rate) == 0:
                        return x
                    noise, one = next(parts)
                    return noise.apply(x, one)

                with _dropouts(self._keras, apply):
                    return predict(inputs)

            with _dropouts(self._keras, note):
                plain = tf.function(predict, autograph=False).get_concrete_function(specs)
            masks = [tf.TensorSpec(noise.shape, tf.float32) for noise in found]
            thinned = tf.function(predict_thinned, autograph=False).get_concrete_function(specs, masks)
            self._graphs[key] = found, _called(plain), _called(thinned)
        return self._graphs[key]


def _called(function: Any) -> Callable[..., Any]:
    """Let a concrete function take arrays in the structure of its inputs."""
    import tensorflow as tf

    def call(*arguments: Any) -> Any:
        return function(*tf.nest.map_structure(tf.convert_to_tensor, arguments))

    return call


@contextmanager
def _dropouts(model: Any, hook: Hook) -> Iterator[None]:
    """Run a hook in place of all dropout layers, those inside other layers too."""
    import tensorflow as tf

    package = importlib.import_module(str(_package_of(model)))

    @tf.autograph.experimental.do_not_convert
    def call(layer: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return hook(layer, inputs)

    classes = [getattr(package.layers, name) for name in _DROPOUTS]
    # Only classes with a call of their own: the others take that of the class they come from.
    classes = [one for name in classes for one in name.__mro__ if "call" in vars(one) and _named_dropout(one)]
    own = {one: vars(one)["call"] for one in classes}
    try:
        for one in own:
            one.call = call
        yield
    finally:
        for one, original in own.items():
            one.call = original


def _noise(layer: Any, x: Any) -> Noise:
    names = {base.__name__ for base in type(layer).__mro__}
    kind = "gaussian" if "GaussianDropout" in names else "alpha" if "AlphaDropout" in names else "elementwise"
    shape = [int(size) for size in x.shape]
    if names & set(_SPATIAL):
        channel = 1 if getattr(layer, "data_format", None) == "channels_first" else len(shape) - 1
        shape = [size if axis in (0, channel) else 1 for axis, size in enumerate(shape)]
    elif getattr(layer, "noise_shape", None) is not None:
        given = [size if asked is None else int(asked) for size, asked in zip(shape, layer.noise_shape, strict=True)]
        shape = [shape[0], *given[1:]]
    return Noise(kind, float(layer.rate), tuple(shape))


def _package_of(model: Any) -> str | None:
    """Return the Keras package that a model's class comes from."""
    packages = (base.__module__.partition(".")[0] for base in type(model).__mro__ if base.__name__ == "Model")
    return next((package for package in packages if package in _PACKAGES), None)


def _backend_of(model: Any) -> str:
    return str(importlib.import_module(str(_package_of(model))).backend.backend())


def _named_dropout(one: type) -> bool:
    return one.__name__ in (*_DROPOUTS, "BaseSpatialDropout")


def _is_dropout(layer: Any) -> bool:
    return any(_named_dropout(base) for base in type(layer).__mro__)


def _layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _layers(layer)


def _numpy(output: Any) -> Any:
    if isinstance(output, dict):
        return {key: _numpy(value) for key, value in output.items()}
    if isinstance(output, list | tuple):
        return [_numpy(value) for value in output]
    return output.numpy()

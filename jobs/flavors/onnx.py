"""ONNX models, scored by onnxruntime on one thread of the CPU."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.flavors.scorer import Engine, Signature, Steady, UnloadableError, UnusableError, texts_of
from validation.parity import Floats

# Types of inputs, as onnxruntime names them, and how numbers become them.
_NUMBERS = {
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
_TEXT = "tensor(string)"
_FLOATS = ("tensor(float)", "tensor(double)")


class OnnxModel:
    """A graph with one input of all features side by side, or with one input a feature, of the feature's name.

    Of its outputs the last that holds floats counts: what converters put behind the label. A missing value is NaN, a
    missing text the empty one; the index of a category where the graph asks for a number.
    """

    def __init__(self, raw: bytes, signature: Signature) -> None:
        """Read the model.

        Raises:
            UnloadableError: onnxruntime cannot read it, or its inputs and outputs do not fit the signature.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # what goes wrong is raised
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        except Exception as err:  # onnxruntime's errors have no common class that it exports
            raise UnloadableError(str(err).splitlines()[0]) from err
        self._signature, self._inputs = signature, self._session.get_inputs()
        self._version: str = onnxruntime.__version__
        self._output = self._counted()
        self._check_inputs()
        sizes = {put.shape[0] for put in self._inputs if put.shape and isinstance(put.shape[0], int)}
        self._steady = Steady(self._answer, block=sizes.pop() if sizes else Steady.BLOCK)

    @property
    def feature_names(self) -> list[str] | None:
        return None if self._is_side_by_side else [put.name for put in self._inputs]

    @property
    def _is_side_by_side(self) -> bool:
        return len(self._inputs) == 1 and [put.name for put in self._inputs] != self._signature.names

    def library(self, why: str = "") -> Engine:  # noqa: ARG002  # there is nothing faster
        return Engine(f"onnxruntime {self._version}", self._steady)

    def fastest(self, columns: Sequence[Floats]) -> Engine:
        self._steady.prove(columns)
        return self.library()

    def at_once(self, columns: Sequence[Floats]) -> Floats:
        """The numbers of all rows in one run of the graph, as the library itself is used."""
        return self._answer(columns)

    def _counted(self) -> str:
        found = [put for put in self._session.get_outputs() if put.type in _FLOATS]
        if not found:
            kinds = ", ".join(f"{put.name} {put.type}" for put in self._session.get_outputs())
            raise UnloadableError(f"no output is a tensor of floats, but {kinds}; convert it with zipmap=False")
        return str(found[-1].name)

    def _check_inputs(self) -> None:
        for put in self._inputs:
            if put.type not in _NUMBERS and put.type != _TEXT:
                raise UnloadableError(f"input {put.name} is a {put.type}")
        if self._is_side_by_side:
            width, wanted = (self._inputs[0].shape or [None])[-1], len(self._signature.features)
            if isinstance(width, int) and width != wanted:
                raise UnloadableError(f"it reads {width} columns, its manifest names {wanted}")

    def _answer(self, columns: Sequence[Floats]) -> Floats:
        try:
            (found,) = self._session.run([self._output], self._feed(columns))
        except Exception as err:  # as above
            raise UnusableError(f"onnxruntime: {str(err).splitlines()[0]}") from err
        numbers = np.asarray(found, dtype=np.float64).reshape(len(columns[0]), -1)
        if self._signature.objective == "binary" and numbers.shape[1] == 2:  # of both classes
            numbers = numbers[:, 1:]
        if numbers.shape[1] != self._signature.numbers:
            raise UnusableError(f"it predicts {numbers.shape[1]} numbers, its manifest {self._signature.numbers}")
        return numbers[:, 0] if numbers.shape[1] == 1 else numbers

    def _feed(self, columns: Sequence[Floats]) -> dict[str, Any]:
        with np.errstate(all="ignore"):
            if self._is_side_by_side:
                (put,) = self._inputs
                return {put.name: _cast(put.type, np.column_stack(columns))}
            feed = {}
            for put, feature, column in zip(self._inputs, self._signature.features, columns, strict=True):
                values = texts_of(feature.categories, column, "") if put.type == _TEXT else _cast(put.type, column)
                feed[put.name] = values.reshape(-1, 1) if len(put.shape or ()) == 2 else values
            return feed


def _cast(kind: str, values: Floats) -> Any:
    if kind == _TEXT:
        raise UnusableError("one input of text for all features; give it one input a feature")
    return values.astype(_NUMBERS[kind])

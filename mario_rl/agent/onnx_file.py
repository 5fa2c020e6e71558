"""A network as an ONNX file (https://onnx.ai), for programs without PyTorch.

obs         uint8 [batch, 4, H, W], the oldest frame first
q_values    float32 [batch, num_actions], as `DuelingNetwork.q_values`
quantiles   float32 [batch, num_actions, num_quantiles]
"""

from pathlib import Path
from typing import Any

import numpy as np

from mario_rl.agent.network import DuelingNetwork
from mario_rl.config import STACK
from mario_rl.extras import import_extra
from mario_rl.storage.files import atomic_write

_OPSET = 17
_IR_VERSION = 8  # read by ONNX Runtime from 1.13 on


def write_onnx(network: DuelingNetwork, frame_shape: tuple[int, int], path: Path) -> None:
    """
    Raises:
        UserError: if onnx is not installed.
        OSError: if the file cannot be written.
    """
    onnx = require_onnx()
    content = _model(onnx, network, frame_shape).SerializeToString()
    atomic_write(path, lambda file: file.write(content))


def _model(onnx: Any, network: DuelingNetwork, frame_shape: tuple[int, int]) -> Any:
    helper, types = onnx.helper, onnx.TensorProto
    arrays: dict[str, np.ndarray] = {}
    nodes: list[Any] = []

    def add(operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output

    def constant(name: str, array: Any) -> str:
        arrays[name] = np.asarray(array)
        return name

    def parameters(name: str, layer: Any) -> list[str]:
        return [
            constant(f"{name}.{part}", getattr(layer, part).detach().float().numpy())
            for part in ("weight", "bias")
        ]

    def convolution(index: int, source: str) -> str:
        layer: Any = network.trunk[index]
        made = add(
            "Conv", [source, *parameters(f"trunk.{index}", layer)], f"convolution.{index}",
            kernel_shape=list(layer.kernel_size), strides=list(layer.stride),
        )  # fmt: skip
        return add("Relu", [made], f"features.{index}")

    def head(name: str, layers: Any, source: str) -> str:
        hidden = add(
            "Gemm", [source, *parameters(f"{name}.0", layers[0])], f"{name}.hidden", transB=1
        )
        active = add("Relu", [hidden], f"{name}.active")
        return add("Gemm", [active, *parameters(f"{name}.2", layers[2])], name, transB=1)

    pixels = add("Cast", ["obs"], "pixels", to=types.FLOAT)
    source = add("Div", [pixels, constant("white", np.float32(255))], "brightness")
    for index in (0, 2, 4):
        source = convolution(index, source)
    features = add("Flatten", [source], "features")
    value = head("value", network.value, features)
    advantage = head("advantage", network.advantage, features)
    quantiles = network.value[2].out_features
    shape = constant("shape", np.array([-1, network.num_actions, quantiles], dtype=np.int64))
    advantages = add("Reshape", [advantage, shape], "advantages")
    mean = add("ReduceMean", [advantages], "mean_advantage", axes=[1], keepdims=1)
    one = constant("one", np.array([1], dtype=np.int64))
    values = add("Unsqueeze", [value, one], "values")
    centred = add("Sub", [advantages, mean], "centred")
    add("Add", [values, centred], "quantiles")
    add("ReduceMean", ["quantiles"], "q_values", axes=[2], keepdims=0)

    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "mario-rl",
        [info("obs", types.UINT8, ["batch", STACK, *frame_shape])],
        [
            info("q_values", types.FLOAT, ["batch", network.num_actions]),
            info("quantiles", types.FLOAT, ["batch", network.num_actions, quantiles]),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
    return model


def require_onnx() -> Any:
    """The library.

    Raises:
        UserError: if it is not installed.
    """
    import_extra("onnx.numpy_helper", "ONNX files", "onnx")
    return import_extra("onnx", "ONNX files", "onnx")

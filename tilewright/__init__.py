"""tilewright: write a tensor op once, as mathematics over named axes; the rest is generated.

import tilewright as tw

@tw.op
def softmax(x: tw.Tile["... d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")
"""

from tilewright import errors as errors
from tilewright.dsl.axes import Scalar as Scalar
from tilewright.dsl.axes import Tile as Tile
from tilewright.dsl.dtypes import (
    DType as DType,
)
from tilewright.dsl.dtypes import (
    bfloat16 as bfloat16,
)
from tilewright.dsl.dtypes import (
    bool_ as bool_,
)
from tilewright.dsl.dtypes import (
    complex64 as complex64,
)
from tilewright.dsl.dtypes import (
    complex128 as complex128,
)
from tilewright.dsl.dtypes import (
    float8_e4m3fn as float8_e4m3fn,
)
from tilewright.dsl.dtypes import (
    float8_e5m2 as float8_e5m2,
)
from tilewright.dsl.dtypes import (
    float16 as float16,
)
from tilewright.dsl.dtypes import (
    float32 as float32,
)
from tilewright.dsl.dtypes import (
    float64 as float64,
)
from tilewright.dsl.dtypes import (
    int8 as int8,
)
from tilewright.dsl.dtypes import (
    int16 as int16,
)
from tilewright.dsl.dtypes import (
    int32 as int32,
)
from tilewright.dsl.dtypes import (
    int64 as int64,
)
from tilewright.dsl.dtypes import (
    uint8 as uint8,
)
from tilewright.dsl.language import *  # noqa: F403
from tilewright.op import Op as Op
from tilewright.op import op as op
from tilewright.op.mapped import vmap as vmap
from tilewright.op.shapes import Typed as Typed
from tilewright.op.shapes import shapes as shapes
from tilewright.runtime import memory as memory
from tilewright.runtime.devices import device as device
from tilewright.runtime.devices import get_default_device as get_default_device
from tilewright.runtime.devices import set_default_device as set_default_device
from tilewright.runtime.precision import get_math_accuracy as get_math_accuracy
from tilewright.runtime.precision import get_matmul_precision as get_matmul_precision
from tilewright.runtime.precision import set_math_accuracy as set_math_accuracy
from tilewright.runtime.precision import set_matmul_precision as set_matmul_precision
from tilewright.runtime.threads import get_num_threads as get_num_threads
from tilewright.runtime.threads import set_num_threads as set_num_threads

# isort: split
from tilewright import kernels as kernels
from tilewright.tensor import *  # noqa: F403

__version__ = "0.1.0"

_LAZY = {"nn": "nn", "optim": "optim", "cuda": "runtime.cuda"}


def __getattr__(name: str) -> object:
    """Modules that are imported when they are first used."""
    if name in _LAZY:
        import importlib

        return importlib.import_module(f"tilewright.{_LAZY[name]}")
    raise AttributeError(f"module 'tilewright' has no attribute {name!r}")

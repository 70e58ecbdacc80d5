"""How much arithmetic a function is: its matrix products and convolutions, counted from the jaxpr.

Works on shapes alone, knows the length of every scan, and counts what is recomputed in the
backward pass too. Elementwise work is left out.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def flops(function: Callable, *shapes: Any) -> int:
  """Floating point operations (a multiply-add is two) of `function(*shapes)`."""
  return _of_jaxpr(jax.make_jaxpr(function)(*shapes).jaxpr)


def _of_jaxpr(jaxpr: Any) -> int:
  return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
  name = equation.primitive.name
  if name == "dot_general":
    return _dot(equation)
  if name == "conv_general_dilated":
    return _convolution(equation)
  inner = [_of_jaxpr(jaxpr) for jaxpr in _inner(equation.params)]
  if name == "cond":
    return max(inner)
  return sum(inner) * (equation.params["length"] if name == "scan" else 1)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
  for value in params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      if hasattr(item, "eqns"):
        yield item
      elif hasattr(getattr(item, "jaxpr", None), "eqns"):
        yield item.jaxpr


def _dot(equation: Any) -> int:
  (contracted, _), _ = equation.params["dimension_numbers"]
  left = equation.invars[0].aval.shape
  depth = math.prod(left[axis] for axis in contracted)
  return 2 * depth * math.prod(equation.outvars[0].aval.shape)


def _convolution(equation: Any) -> int:
  # kernel_spec: (out, in per group, *space) axes of the kernel.
  spec = equation.params["dimension_numbers"].rhs_spec
  kernel = equation.invars[1].aval.shape
  taps = math.prod(kernel[axis] for axis in spec[1:])
  return 2 * taps * math.prod(equation.outvars[0].aval.shape)

"""Classification without training on the classes: each is described, the nearest one is said.

`probabilities` are what `vfe.evaluate.classification.Classification` collects, by head.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.errors import UserError
from vfe.models.contrastive import normalised

# Of actions.
TEMPLATES = (
  "{}",
  "a video of a person {}.",
  "a video of someone who is {}.",
  "a short clip that shows {}.",
  "this is {}, seen from nearby.",
  "an example of {}.",
)


def prompts(
  classes: Sequence[str], templates: Sequence[str] = TEMPLATES
) -> tuple[tuple[str, ...], ...]:
  """For each class the texts that describe it, one a template, which has one `{}` for the name;
  underscores in names become spaces.

  Raises:
    UserError: a template with no `{}` or several.
  """
  for template in templates:
    if template.count("{}") != 1:
      raise UserError(f"template {template!r} needs one {{}}, where the class's name goes.")
  names = [" ".join(name.replace("_", " ").split()) for name in classes]
  return tuple(tuple(template.replace("{}", name) for template in templates) for name in names)


def class_embeddings(embedded: Float[Array, "C P D"]) -> Float[Array, "C D"]:
  """Of each class, float32 of length 1: its P prompts' embeddings, each of length 1, averaged."""
  return normalised(jnp.mean(normalised(embedded), axis=1))


def probabilities(
  video: Float[Array, "B D"], classes: Float[Array, "C D"], scale: Float[Array, ""]
) -> Float[Array, "B C"]:
  """softmax(scale * cosine) over the classes, float32: their order is that of the cosines."""
  cosine = jnp.matmul(normalised(video), normalised(classes).T, precision=jax.lax.Precision.HIGHEST)
  return jax.nn.softmax(scale * cosine, axis=-1)

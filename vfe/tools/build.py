"""Makes a TFDS data set of encoded videos, on Apache Beam.

    python -m vfe.tools.build --dataset=tabletop --rung=verb --size=64 --data_dir=tfds
    python -m vfe.tools.build --dataset=diving48 --manual_dir=diving48 --data_dir=tfds
    python -m vfe.main --config=... --config.data.source=tfds --config.data.path=tfds/vfe_diving48

Videos are stored as the files that they are: for small pictures and quick seeking, run
vfe.tools.prepare on the same source, or on the result. --runner= names a runner of Apache Beam,
whose options stand after `--` (docs/data-at-scale.md). A data set that is there already is left
alone, one that was stopped is begun anew. Videos that are missing are left out and named in the
data set's metadata.json.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from vfe.data.record import is_url
from vfe.data.tabletop.world import RUNGS, TEXTURES, World
from vfe.errors import UserError
from vfe.tools import beam, cli


def _tabletop(flags: argparse.Namespace, **arguments: Any) -> Any:
  module = importlib.import_module("vfe.data.tfds.tabletop")
  names = ("size", "frames", "rung", "texture", "motion", "seed")
  world = World(**{name: getattr(flags, name) for name in names}, objects=tuple(flags.objects))
  config = module.WorldConfig.of(world, flags.videos, flags.eval_videos)
  return module.VfeTabletop(config=config, **arguments)


def _diving48(flags: argparse.Namespace, **arguments: Any) -> Any:
  if not os.path.isdir(flags.manual_dir or ""):
    raise UserError(
      f"--manual_dir={flags.manual_dir or ''} is no folder; name the one with Diving48's lists and "
      f"videos (docs/data-at-scale.md)."
    )
  return importlib.import_module("vfe.data.tfds.diving48").VfeDiving48(**arguments)


# --dataset -> its builder, of the flags.
DATASETS: dict[str, Callable[..., Any]] = {"tabletop": _tabletop, "diving48": _diving48}


def main(argv: Sequence[str]) -> None:
  """The command line."""
  ours, options = beam.split_options(argv)
  flags = _parse(ours)
  options = beam.pipeline_options(flags.runner, options)
  data_dir = flags.data_dir if is_url(flags.data_dir) else os.path.abspath(flags.data_dir)
  builder = DATASETS[flags.dataset](flags, data_dir=data_dir, file_format="array_record")
  if builder.data_path.exists():
    print(f"{builder.data_path}: complete already")
    return
  tfds = importlib.import_module("tensorflow_datasets")
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(
      manual_dir=flags.manual_dir and os.path.abspath(flags.manual_dir),
      beam_options=options,
      try_download_gcs=False,
    )
  )
  counts = ", ".join(f"{split.num_examples} {name}" for name, split in builder.info.splits.items())
  missing = sum(map(len, (builder.info.metadata or {}).get("missing", {}).values()))
  named = f"; {missing} missing, named in metadata.json" if missing else ""
  print(f"{builder.data_path}: {counts} videos{named}")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--dataset", required=True, choices=tuple(DATASETS))
  add("--data_dir", required=True, help="TFDS's folder of data sets, local or gs://")
  add("--manual_dir", help="folder with what you downloaded, for data sets that are")
  beam.add_runner(parser, beam.DIRECT)
  world = parser.add_argument_group("tabletop").add_argument
  world("--rung", default=World.rung, choices=RUNGS)
  world("--size", type=int, default=World.size, help="pixels of a side")
  world("--frames", type=int, default=World.frames)
  world("--objects", type=int, nargs=2, default=World.objects, help="least and most")
  world("--texture", default=World.texture, choices=tuple(TEXTURES))
  world("--motion", type=float, default=World.motion, help="factor on head motion")
  world("--seed", type=int, default=World.seed)
  world("--videos", type=cli.at_least(1), default=4096, help="training videos")
  world("--eval_videos", type=cli.at_least(1), default=512, help="validation videos")
  return parser.parse_args(argv)


if __name__ == "__main__":
  cli.run(main)

"""vfe: train long-video encoders."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "vfe" / "__init__.py").read_text())[1]

# TensorFlow writes TensorBoard's files and serves TFDS; the models never import it, and without it
# vfe runs too. On x86 Linux its CPU build is half the download and leaves the accelerator alone.
HAS_TENSORFLOW = "python_version < '3.14'"
X86_LINUX = "sys_platform == 'linux' and platform_machine == 'x86_64'"
ELSEWHERE = "(sys_platform != 'linux' or platform_machine != 'x86_64')"

setuptools.setup(
  name="vfe",
  version=VERSION,
  description="Video-first encoders: train long-video encoders in JAX",
  long_description=(HERE / "README.md").read_text(),
  long_description_content_type="text/markdown",
  author="The vfe authors",
  license="Apache-2.0",
  license_files=["LICENSE"],
  packages=setuptools.find_namespace_packages(include=["vfe", "vfe.*"]),
  python_requires=">=3.11",
  # The oldest versions that were seen to work together.
  install_requires=[
    "absl-py>=2.5",
    "array_record>=0.8.6",
    "av>=18.1",
    "clu>=0.0.12",
    "etils[epath]>=1.15",
    "flax>=0.12.8",
    "grain>=0.2.18",
    "importlib_resources>=7.1",  # of tensorflow-datasets, which does not declare it
    "jax>=0.10.2",
    "jaxtyping>=0.3.11",
    "ml_collections>=1.1",
    "numpy>=2.4",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "pillow>=12.1.1",
    "safetensors>=0.8",
    "tensorboard>=2.21",  # of clu, which does not declare it
    "tensorflow-datasets>=4.9.10",
    "tokenizers>=0.23",
    f"tensorflow-cpu>=2.21; {HAS_TENSORFLOW} and {X86_LINUX}",
    f"tensorflow>=2.21; {HAS_TENSORFLOW} and {ELSEWHERE}",
  ],
  extras_require={
    "tpu": ["jax[tpu]>=0.10.2"],
    "cuda": ["jax[cuda12]>=0.10.2"],
    "plan": [f"libtpu; {X86_LINUX}"],
    # Beam holds protobuf below 7, pillow below 13 and beartype below 0.23.
    "beam": ["apache-beam>=2.72"],
    # 100 MB, most of them programs that run with Java; without it figures are not official.
    "captions": ["pycocoevalcap>=1.2"],
    "test": [
      "beartype>=0.22", "hypothesis>=6.170", "pycocoevalcap>=1.2", "pytest>=9.2",
      "pytest-xdist>=3.8", "ruff>=0.17", "scipy>=1.17",
    ],
    "docs": ["mkdocs-material>=9.5"],
  },
  classifiers=[
    "License :: OSI Approved :: Apache Software License",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
  ],
)

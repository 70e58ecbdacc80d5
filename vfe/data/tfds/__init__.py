"""TensorFlow Datasets: builders that store encoded videos, and the source that reads them.

`python -m vfe.tools.build` makes a data set, `data.source=tfds` reads it. TensorFlow is imported
where one is made, not where it is read.
"""

"""What else scores Parquet files with a LightGBM model: each leaves the id, the features and the score of every row."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.accounts import KEY, NUMBERS, WORDS
from jobs.bundles import Bundle
from jobs.matrix import feature_matrix

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def saved_model(bundle: Bundle, folder: Path) -> Path:
    """The bundle's model as one of MLflow's, in `folder`."""
    import mlflow.pyfunc

    text = (bundle.folder / bundle.manifest.model_file).read_text(encoding="utf-8")
    categories = {feature.name: list(feature.categories or ()) for feature in bundle.manifest.features}
    wrapped = _model(text, {name: words for name, words in categories.items() if words})
    mlflow.pyfunc.save_model(str(folder), python_model=wrapped, pip_requirements=["lightgbm"])
    return folder


def _model(text: str, categories: dict[str, list[str]]) -> Any:
    import mlflow.pyfunc

    class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # the peers' package is not typed
        """Encodes the words as in training, because LightGBM reads numbers only."""

        def load_context(self, context):  # type: ignore[no-untyped-def]  # noqa: ARG002
            import lightgbm

            self.booster = lightgbm.Booster(model_str=text)

        def predict(self, context, model_input):  # type: ignore[no-untyped-def]  # noqa: ARG002  # MLflow reads hints
            import pandas as pd

            columns = [
                pd.Categorical(model_input[name], categories[name]).codes if name in categories else model_input[name]
                for name in self.booster.feature_name()
            ]
            return self.booster.predict(np.column_stack(columns))

    return Model()


def spark_udf(spark: "SparkSession", frame: "DataFrame", model: Path, out: Path) -> None:
    """`mlflow.pyfunc.spark_udf` in the workers' own environment, as most do it."""
    import mlflow.pyfunc
    from pyspark.sql import functions as F  # noqa: N812

    udf = mlflow.pyfunc.spark_udf(spark, str(model), result_type="double", env_manager="local")
    scored = frame.withColumn("score", udf(F.struct(*NUMBERS, *WORDS)))
    scored.write.option("compression", "zstd").parquet(str(out))


def transport(frame: "DataFrame", out: Path) -> None:
    """`mapInArrow` with no model: what moving the rows to Python and back costs."""
    from pyspark.sql import types as T  # noqa: N812

    def passed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch.append_column("score", pa.array(np.zeros(batch.num_rows)))

    scored = frame.mapInArrow(passed, T.StructType([*frame.schema.fields, T.StructField("score", T.DoubleType())]))
    scored.write.option("compression", "zstd").parquet(str(out))


def threads(bundle: Bundle, source: Path, out: Path, cores: int) -> None:
    """No Spark: pyarrow reads and writes, LightGBM predicts on all cores."""
    out.mkdir()
    import lightgbm

    booster = lightgbm.Booster(model_str=(bundle.folder / bundle.manifest.model_file).read_text(encoding="utf-8"))
    for path in sorted(source.iterdir()):
        table = pq.read_table(path, columns=[KEY, *NUMBERS, *WORDS], partitioning=None)
        matrix = feature_matrix(bundle.manifest.features, table, model=bundle.id)
        scores = booster.predict(matrix, num_threads=cores)
        pq.write_table(table.append_column("score", pa.array(scores)), out / path.name, compression="zstd")

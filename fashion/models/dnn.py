"""The dense network: dense layers on the flattened pixels."""

import keras
from keras import layers

from fashion.data.dataset import Split
from fashion.models.layers import normalization, standardization
from fashion.models.optimizers import OUTPUT
from fashion.params import Fraction, Normalization, TrainingParams, Widths


class Params(TrainingParams):
    """The network's own params, in addition to the shared ones."""

    hidden_units: Widths
    batch_normalization: Normalization
    dropout: Fraction


def build(params: Params, train: Split) -> keras.Model:
    """Return the untrained network: pixels (uint8, (n, height, width, channels)) in, probabilities (n, classes) out."""
    model = keras.Sequential(name="dnn")
    model.add(keras.Input(train.image_shape, dtype="uint8"))
    model.add(standardization(train.images))
    model.add(layers.Flatten())
    for units in params.hidden_units:
        model.add(layers.Dense(units, use_bias=False))
        model.add(normalization(params.batch_normalization))
        model.add(layers.ReLU())
        model.add(layers.Dropout(params.dropout))
    model.add(layers.Dense(train.num_classes, name=OUTPUT))
    model.add(layers.Softmax(dtype="float32"))
    return model

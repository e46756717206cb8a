"""The optimiser with its learning-rate schedule."""

import keras
import tensorflow as tf

from fashion.params import TrainingParams

OUTPUT = "output"  # the name of the layer that computes the logits, in every network
NEWTON_SCHULZ_STEPS = 3  # more steps take longer and do not raise the accuracy


class ConvolutionalMuon(keras.optimizers.Muon):
    """Muon for dense and convolutional kernels: each step is an orthogonal matrix times the learning rate.

    A kernel with more than two axes is reshaped to a matrix (inputs x outputs). Before each step it is rescaled to the
    norm of an orthogonal matrix, so that the learning rate is relative to the kernel's size; a batch normalisation
    must follow to undo that scale. AdamW trains the output layer, the biases and the normalisations. The matrix is
    orthogonalised in the dtype that the layers compute in.

    Source: Keller Jordan's Muon (https://kellerjordan.github.io/posts/muon/), as in cifar10-airbench.
    """

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) < 2 or OUTPUT in variable.path.split("/")

    def _muon_update_step(self, gradient: tf.Tensor, variable: tf.Variable, lr: tf.Tensor, m: keras.Variable) -> None:
        outputs = variable.shape[-1]
        m.assign(self.momentum * m + gradient)
        direction = tf.reshape(gradient + self.momentum * m, (-1, outputs))  # Nesterov's
        direction = tf.cast(direction, keras.config.dtype_policy().compute_dtype)
        step = tf.reshape(self.zeropower_via_newtonschulz5(direction, self.ns_steps), variable.shape)
        variable.assign(variable * (outputs**0.5 / tf.norm(variable)) - lr * tf.cast(step, variable.dtype))


def create(params: TrainingParams, steps: int) -> keras.optimizers.Optimizer:
    """Return the optimiser for `steps` steps, with a linear warm-up and a cosine decay of the learning rate."""
    warmup_steps = int(params.warmup_fraction * steps)  # rounded down, so that at least one step of decay is left
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=params.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=steps - warmup_steps,
        alpha=params.final_learning_rate_fraction,
    )
    if params.optimizer == "adam":
        return keras.optimizers.Adam(schedule)
    return ConvolutionalMuon(
        schedule,
        momentum=params.momentum,
        ns_steps=NEWTON_SCHULZ_STEPS,
        adam_lr_ratio=params.adam_learning_rate / params.learning_rate,
        weight_decay=None,
        adam_weight_decay=None,
    )

"""The optimiser that the params ask for, with its learning-rate schedule."""

import keras
import tensorflow as tf

from fashion.params import Training

OUTPUT = "output"  # the name of every network's last layer
NEWTON_SCHULZ_STEPS = 3  # towards an orthogonal matrix; more made trainings longer and no better


@keras.saving.register_keras_serializable("fashion")
class ConvolutionalMuon(keras.optimizers.Muon):
    """Keras' Muon, for convolutions as well: the step of a kernel is an orthogonal matrix times the learning rate.

    A kernel of any number of axes is taken as the matrix from all it reads to all it puts out. Before each step it is
    scaled to the norm of an orthogonal matrix, so that the learning rate says which share of it is renewed. The batch
    normalisation that must follow it undoes that scale. The output layer, biases and normalisations go by AdamW.

    From Keller Jordan's Muon (https://kellerjordan.github.io/posts/muon/), as his cifar10-airbench applies it.
    """

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) < 2 or OUTPUT in variable.path

    def _muon_update_step(self, gradient: tf.Tensor, variable: tf.Variable, lr: tf.Tensor, m: keras.Variable) -> None:
        outputs = variable.shape[-1]
        m.assign(self.momentum * m + gradient)
        direction = tf.reshape(gradient + self.momentum * m, (-1, outputs))  # Nesterov's
        step = tf.reshape(self.zeropower_via_newtonschulz5(direction, self.ns_steps), variable.shape)
        variable.assign(variable * (outputs**0.5 / tf.norm(variable)) - lr * step)


def create(params: Training, steps: int) -> keras.optimizers.Optimizer:
    """Return the optimiser for a training of `steps` steps.

    The learning rate rises from zero to its peak in a straight line and then falls along half a cosine wave.
    """
    rising = int(params.warmup * steps)  # rounded down, so that one step at least is left to fall
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0, warmup_target=params.learning_rate, warmup_steps=rising, decay_steps=steps - rising
    )
    averaging = {"use_ema": params.averaging > 0, "ema_momentum": params.averaging}
    if params.optimizer == "adam":
        return keras.optimizers.Adam(schedule, **averaging)
    return ConvolutionalMuon(
        schedule,
        momentum=params.momentum,
        ns_steps=NEWTON_SCHULZ_STEPS,
        adam_lr_ratio=params.adam_learning_rate / params.learning_rate,
        weight_decay=None,
        adam_weight_decay=None,
        **averaging,
    )

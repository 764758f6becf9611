"""Gradients through the host's model.

To read in this order: `measurement` (one model call that is measured, from the request for memory on),
`gradient_probe` (Abs-Grad-SAM of that call),
`differentiable` (the only exit from inference mode) with `host_layers` (layers, weights, blocks that are run again),
`recorded_end` (the same for the end of a transformer) with `float32_stream` (nothing on the way is rounded),
`word_variable` (the words' probabilities, with respect to which autograd differentiates), `foreign_attention` (whether
another node's attention lets gradients pass), `exact_solver` (the definition itself, and how long it takes);
`latent_gradient` (the other way round: of a loss on attention, by the sampler's state) with `word_maps` (the attention)
and `recorded_start` (the layers before it); and
`training` (of small networks on what a model made).
"""

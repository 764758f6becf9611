"""Gradients through the host's model.

To read in this order: `gradient_probe` (one model call that is measured, from the request for memory to the maps),
`differentiable` (the only exit from inference mode) with `float32_layers` (layers, weights, blocks that are run again),
`recorded_end` (the same for the end of a transformer) with `float32_stream` (nothing on the way is rounded),
`word_variable` (the words' probabilities, with respect to which autograd differentiates), `foreign_attention` (whether
another node's attention lets gradients pass), `exact_solver` (the definition itself, and how long it takes); and
`training` (of small networks on what a model made).
"""

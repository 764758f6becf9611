"""What this pack runs where a model computes attention.

To read in this order: `attention_call` (one attention, and what a processor may do there; `mixture` is one of these),
`override` (runs the processors of one model call), `observer` (installs a capture and reads it) with `capturing` (the
wrappers around a run, a step and a model call) and `captured_run` (what it keeps). The processors: `recorder` (the
words' maps, with `looked_for` those of words that are not in the prompt), `refinement` (makes maps sharper),
`place_reader` (what every place of a picture attends to). Whose rows and tokens these are: `positives` (the prompt's
rows in a model call), `named_tokens` (which of its tokens count), `arrangement` (where other nodes put both).
`layer_choice`: which layers are wanted. `model_call`: the maps of one call.
"""

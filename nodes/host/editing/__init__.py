"""Editing by attention: a source picture is made beside the target, and the target takes over some of its attention.

To read in this order: `twin_sampling` (makes every run of a model one batch of source and target) with `twin_run` (one
such run), `paths` (what a picture beside the target is at each noise level), `twin_texts` (the prompts of all in the
guider's conditionings) and `shared_noise` (all get the same noise); `editors` (what an editor is); `prompt_to_prompt`
(the first one) with `word_tables` (its prompts); `mutual_self_attention` and `plug_and_play` with `layers` (where they
edit); `appearance` (a third picture, which gives its appearance) with `cross_image_attention` and `eye_for_an_eye`;
`local_blend` (keeps the source outside a mask).

Without a twin: `positive_rows` (what edits the positive prompts' rows in every run); `regional_attention` (prompts for
parts of the picture) with `region_prompts` (which is where) and `region_rows` (in a model call); `structured_attention`
with `phrases` (values of phrases encoded alone); `dense_diffusion` with `placed_phrases` (phrases in their places).

Pictures that the model did not draw: `own_run` (the pack's own walk through the noise levels), `inversion` and
`edit_friendly` (into the noise that leads to a picture), `prompt_difference` (where two prompts disagree about it).
"""

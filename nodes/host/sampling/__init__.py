"""Changes of a sampler's state between its steps, for every sampler and every sampler node.

`changes`: how a change is written and installed. `masked_latent`: the first one; a second one is a module beside it.
`word_guidance` and `classifier_guidance`, installed by `guided_sampler`, with `guided_state` and `guidance_report`,
move the state down a gradient; `guidance_sheet` with `loss_plot` draws what came of it. What the masked latent
uses: `mask_sources` (finds the mask), `report` (what happened), `ksampler` (the stock KSampler with it),
`recorded_path` (a run that starts from an inversion), `painting` (its user paints over the masks). `pausing` with
`staged_values`: a sampler waits between steps, and values of its run change. `variants` with `asker` and `fresh_start`:
what both ask, and how their user goes back. `pause_content`: what both show. How the state is changed:
`changed_sampler` with `changed_run` (in place or in segments), `trial` with `trial_run` (which of the two, found by
trying the sampler function on a small latent), `intercepted_model` and `noise_source`. `runs`: which run produced a
latent, for reports and attention captures.
"""

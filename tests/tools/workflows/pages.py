"""Where everything lies on the shipped workflows, and what their notes say."""

from __future__ import annotations

from dataclasses import dataclass

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Page:
    """Where everything lies: boxes (x, y, width, height) by node title, groups by title, and the note."""

    boxes: dict[str, Box]
    groups: dict[str, Box]
    note: str
    note_box: Box


_BASE: dict[str, Box] = {
    "Checkpoint": (0, 60, 340, 120),
    "Reference picture": (0, 260, 340, 380),
    "Reference latent": (0, 720, 340, 80),
    "Prompt": (420, 60, 400, 140),
    "Positive prompt": (420, 280, 400, 120),
    "Negative prompt": (420, 480, 400, 140),
}
_BASE_GROUPS: dict[str, Box] = {
    "1 · Model and reference": (-20, -20, 380, 840),
    "2 · Prompt": (400, -20, 440, 660),
}
# What the two workflows with KSampler (Masked Latent) share.
_MASKED: dict[str, Box] = {
    "Sampler": (900, 60, 400, 560),
    "Decode": (900, 720, 400, 80),
    "Result": (1380, 60, 420, 480),
    "Masks as pictures": (900, 880, 400, 80),
    "Masks": (1380, 620, 420, 340),
    "Heat maps": (900, 1040, 400, 780),
}
_MASKED_GROUPS: dict[str, Box] = {
    "4 · Sample and replace": (880, -20, 440, 660),
    "5 · Look": (880, 660, 440, 1180),
    "6 · Results": (1360, -20, 460, 1500),
}

PAGES: dict[str, Page] = {
    "01_baseline": Page(
        {
            **_BASE,
            "Sampler": (900, 60, 360, 340),
            "Decode": (900, 480, 360, 80),
            "Result": (1340, 60, 420, 480),
            "How much of the reference is left": (1340, 620, 420, 200),
        },
        {**_BASE_GROUPS, "3 · Sample": (880, -20, 400, 600), "4 · Result": (1320, -20, 460, 860)},
        """## Baseline: plain image-to-image

The reference picture is noised to **strength 0.7** and denoised with the prompt. This is what the other workflows
are compared with: much noise loses the picture, little noise ignores the prompt. Change **denoise** to see it.

**Settings** of the paper: 50 steps, cfg 8, DDPM, strength 0.7 (and 1.0). ComfyUI counts the steps that are run: 50
steps at strength 0.7 are **35 steps at denoise 0.7**; *ddim_uniform* spaces them as the paper does.

**Compare Images** measures how much of the reference is left: PSNR in dB and SSIM over the whole picture.

**To run it** choose any SD 1.x or 2.x checkpoint and a picture of the size it was trained on (512 × 512 for SD 1.5;
128 × 128 for the toy checkpoint of the tests).

Source: Devaney, Pathania, Andrade, Maheshwari, *Image Generation via Stable Diffusion Using Latent Space
Manipulation* (baseline).""",
        (0, 880, 820, 330),
    ),
    "02_aggregated_attention": Page(
        {
            **_BASE,
            "Words": (420, 720, 400, 440),
            "Where the subject is": (420, 1240, 400, 400),
            **_MASKED,
            "What the words attend to": (1380, 1040, 420, 420),
        },
        {
            **_BASE_GROUPS,
            "3 · Which words, and where": (400, 660, 440, 1000),
            **_MASKED_GROUPS,
        },
        """## Aggregated attention: keep the reference's surroundings

At steps **5, 18 and 28** the sampler finds where the model's cross-attention looks at the *subject* word: the mask.
Inside the mask the latent stays; outside, it is overwritten with the **reference, noised to the same step**. The
subject changes, its surroundings stay.

**Settings** of the paper and its code: strength 0.7, 50 steps (here the 35 that are run), cfg 8, DDPM, threshold: the
map's mean. Load a picture of *something on a scene*, and prompt *something else on that scene*.

**Try**: *role* all or scene · *rule* otsu · *invert* · other steps in *manipulate_at* · denoise 0.9.

**To run it** choose any SD 1.x or 2.x checkpoint and a picture of the size it was trained on (512 × 512 for SD 1.5;
128 × 128 for the toy checkpoint of the tests).

Source: Devaney, Pathania, Andrade, Maheshwari, *Image Generation via Stable Diffusion Using Latent Space
Manipulation*, Experiment 1.""",
        (-20, 880, 380, 600),
    ),
    "03_scene_based": Page(
        {
            **_BASE,
            "Words": (420, 720, 400, 440),
            "Where the scene is": (420, 1240, 400, 400),
            "Keep the subject": (900, 60, 400, 400),
            "Sampler": (900, 540, 400, 360),
            "Decode": (900, 980, 400, 80),
            "Result": (1380, 60, 420, 480),
            "What happened": (900, 1200, 400, 140),
            "Masks as pictures": (900, 1420, 400, 80),
            "Heat maps": (900, 1580, 400, 780),
            "Masks": (1380, 620, 420, 340),
            "What the words attend to": (1380, 1040, 420, 420),
        },
        {
            **_BASE_GROUPS,
            "3 · Which words, and where": (400, 660, 440, 1000),
            "4 · Patch the model, and sample": (880, -20, 440, 1100),
            "5 · Look": (880, 1120, 440, 1260),
            "6 · Results": (1360, -20, 460, 1500),
        },
        """## Scene-based: keep the reference's subject, draw another scene

At steps **2 and 4** the sampler finds where the model's cross-attention looks at the *scene* word: the mask. Inside
the mask the latent stays, so that the scene is drawn as prompted; outside, where the subject is, it is overwritten with
the **reference at the noise of timestep 80**, almost clean. The model is patched, so this works with **any sampler
node**: here the stock KSampler.

**Settings** of the paper and its code: strength 0.7, 50 steps (here the 35 that are run), cfg 8, DDPM, threshold:
exp(mean of the logarithm + λ) with λ = 0.2. Load a picture of *something on a scene*, and prompt *it on another scene*.

**Try**: *rule* mean, *manipulate_at* 5, 18, 28 and *outside* reference, which keep more of the subject on the toy
checkpoint · *inside* cached reference with *inside_timestep* 680, as in the paper's code · another *value*: higher
makes the mask, and so the new scene, smaller · denoise 0.9 · another sampler.

**To run it** choose any SD 1.x or 2.x checkpoint and a picture of the size it was trained on (512 × 512 for SD 1.5;
128 × 128 for the toy checkpoint of the tests).

Source: Devaney, Pathania, Andrade, Maheshwari, *Image Generation via Stable Diffusion Using Latent Space
Manipulation*, Experiment 2.""",
        (-20, 880, 380, 700),
    ),
    "04_abs_grad_sam": Page(
        {
            **_BASE,
            "Words": (420, 720, 400, 440),
            "What the subject depends on": (420, 1240, 400, 480),
            **_MASKED,
            "What the words act on": (1380, 1040, 420, 420),
        },
        {
            **_BASE_GROUPS,
            "3 · Which words, and where": (400, 660, 440, 1080),
            **_MASKED_GROUPS,
        },
        """## Abs-Grad-SAM: masks from the gradients of the model's prediction

At steps **5, 18 and 28** one more model call measures which parts of the prediction would change if the model looked
at the *subject* word differently: attention times the absolute gradient with respect to it, exact, for every element of
the latent. Smoothed, dilated, and with the threshold mean + 0.5 · std, this becomes a mask for **each latent channel**.
Outside the mask the latent is overwritten with the reference, noised to the same step.

**Settings** of the paper and its code: strength 0.9, 50 steps (here the 45 that are run), cfg 8, DDPM, seed 51828.
Connect an *empty latent* to the sampler's *latent_image* to start from pure noise, as the paper's code does.

**Try**: *polarity* positive (Grad-SAM) · *channels* together · the same picture in workflow 02, whose masks cost no
extra model call, and on the toy checkpoint find the subject better.

**To run it** choose any SD 1.x or 2.x checkpoint and a picture of the size it was trained on (512 × 512 for SD 1.5;
128 × 128 for the toy checkpoint of the tests).

Source: Pathania, *Enhancing Conditional Image Generation with Explainable Latent Space Manipulation*, arXiv
2408.16232.""",
        (-20, 880, 380, 700),
    ),
    "05_explain_picture": Page(
        {
            "Checkpoint": (0, 60, 340, 120),
            "Picture to explain": (0, 260, 340, 380),
            "Picture as latent": (0, 720, 340, 80),
            "Prompt": (420, 60, 400, 140),
            "Positive prompt": (420, 280, 400, 120),
            "Words": (420, 480, 400, 440),
            "Look at the words": (900, 60, 400, 340),
            "Heat maps": (900, 460, 400, 700),
            "What the words attend to": (1380, 60, 420, 740),
            "What depends on the words": (900, 1260, 900, 620),
        },
        {
            "1 · Model and picture": (-20, -20, 380, 840),
            "2 · Describe the picture": (400, -20, 440, 960),
            "3 · Probe": (880, -20, 440, 1200),
            "4 · Result": (1360, -20, 460, 840),
            "5 · Ask the gradients": (880, 1200, 940, 700),
        },
        """## Explain a picture: which part belongs to which word

Describe **your own picture** with a prompt. The picture is noised a little and given to the model once. The heat map
of each word shows where the model's cross-attention looks at it. Nothing is sampled; the picture stays as it is.

**Abs-Grad-SAM**, below, answers another question: which parts of the prediction would change if the model looked at
the word differently? It needs one model call and its gradients. For SDXL it needs the solver *exact*, which is slow.

**noise_level**: 0.3 makes sharp maps. With more noise the model decides on the composition rather than on details, and
the maps are rounder. On the toy checkpoint the subject's map agrees best with the true subject at low levels.

**look_for**: words to look for that are not in the prompt; here *sky*.

**To run it** choose any SD 1.x, SD 2.x or SDXL checkpoint and a picture of the size it was trained on (128 × 128 for
the toy checkpoint of the tests).

Source: method of Experiment 1 in Devaney, Pathania, Andrade, Maheshwari, *Image Generation via Stable Diffusion Using
Latent Space Manipulation*, applied to an existing picture.""",
        (0, 1000, 820, 330),
    ),
    "06_mask_on_the_fly": Page(
        {
            **_BASE,
            "Words": (420, 720, 400, 440),
            "Watch the words": (900, 60, 400, 280),
            "Sampler": (900, 420, 400, 360),
            "Decode the draft": (900, 860, 400, 80),
            "Draft": (900, 1020, 400, 360),
            "Maps": (1380, 60, 400, 180),
            "Smooth": (1380, 320, 400, 120),
            "Grow": (1380, 520, 400, 140),
            "Where the subject is": (1380, 740, 400, 240),
            "Mask as picture": (1380, 1060, 400, 80),
            "Mask": (1380, 1220, 400, 360),
            "Only inside the mask": (1860, 60, 400, 80),
            "Sample A": (2340, 60, 400, 360),
            "Decode A": (2820, 60, 420, 80),
            "Result A": (2820, 220, 420, 360),
            "The prompt inside": (1860, 680, 400, 120),
            "Outside": (1860, 880, 400, 60),
            "The scene alone": (1860, 1020, 400, 100),
            "The scene outside": (1860, 1200, 400, 120),
            "Both": (2340, 680, 400, 80),
            "Sample B": (2340, 840, 400, 360),
            "Decode B": (2820, 680, 420, 80),
            "Result B": (2820, 840, 420, 360),
            "The same mask at every step": (1860, 1480, 400, 60),
            "Sample C": (2340, 1480, 400, 560),
            "Decode C": (2820, 1480, 420, 80),
            "Result C": (2820, 1640, 420, 360),
        },
        {
            "1 · Model and reference": (-20, -20, 380, 840),
            "2 · Prompt": (400, -20, 440, 1200),
            "3 · First pass: a draft, watched": (880, -20, 440, 1420),
            "4 · Its attention becomes a MASK": (1360, -20, 440, 1620),
            "A · Set Latent Noise Mask: draw again only inside": (1840, -20, 1420, 620),
            "B · Conditioning (Set Mask): each prompt in its place": (1840, 600, 1420, 760),
            "C · Mask from Image: overwrite the outside at three steps": (1840, 1400, 1420, 660),
        },
        """## Mask on the fly: the prompt's attention as an ordinary MASK

A first pass samples a draft while **Capture Attention** records where the model looks at the *subject* word; the
draft is the same, bit for bit, as without it. The mean of these maps over all steps, smoothed, grown and with a
threshold, is an ordinary **MASK** of the place where the model puts the new subject. Three ways to use it:

**A** Set Latent Noise Mask: the reference is sampled again inside the mask only; the rest does not change.

**B** Conditioning (Set Mask): the prompt applies inside the mask, the scene alone outside.

**C** Mask from Image: as in workflow 02, but with this one mask at every manipulated step.

All settings are those of workflow 02, for comparison.

**To run it** choose any SD 1.x, SD 2.x or SDXL checkpoint and a picture of the size it was trained on (512 × 512 for
SD 1.5; 128 × 128 for the toy checkpoint of the tests).

Source: method of Experiment 1 in Devaney, Pathania, Andrade, Maheshwari, *Image Generation via Stable Diffusion Using
Latent Space Manipulation*, with ComfyUI's own masks.""",
        (-20, 1240, 860, 420),
    ),
    "07_segment_picture": Page(
        {
            "Checkpoint": (0, 60, 340, 120),
            "Picture to segment": (0, 260, 340, 380),
            "Picture as latent": (0, 720, 340, 80),
            "Prompt": (420, 60, 400, 420),
            "Cut into regions": (900, 60, 400, 780),
            "Masks as pictures": (900, 920, 400, 80),
            "Regions": (1380, 60, 420, 480),
            "Masks": (1380, 620, 420, 380),
        },
        {
            "1 · Model and picture": (-20, -20, 380, 840),
            "2 · Words for the regions": (400, -20, 440, 540),
            "3 · Regions": (880, -20, 440, 1040),
            "4 · Result": (1360, -20, 460, 1040),
        },
        """## Segment a picture: what belongs together, without words or training

The model looks at **your own picture** once, and places whose *self-attention* is alike become one region: no drawn
mask, no prompt, no second model. The node shows the regions and lists them with their share of the picture. Each
region is a **MASK** in the batch, the largest first.

**The prompt** only names the regions: each takes the word that the model looks at most in it. Describe the picture
and everything you want named. Without words, disconnect *subjects* and empty the prompt.

**threshold**: lower makes more and smaller regions, higher joins them. 0.9 and 1.1 are the paper's.

**To run it** choose any SD 1.x, SD 2.x or SDXL checkpoint and a picture of the size it was trained on (512 × 512 for
SD 1.5; 128 × 128 and a threshold of 0.2 for the toy checkpoint of the tests).

Source: Tian, Aggarwal, Colaco, Kira, Gonzalez-Franco, *Diffuse, Attend, and Segment: Unsupervised Zero-Shot
Segmentation using Stable Diffusion*, CVPR 2024.""",
        (0, 1000, 820, 330),
    ),
    "08_find_in_another_picture": Page(
        {
            "Checkpoint": (0, 60, 340, 120),
            "Picture A": (0, 260, 340, 380),
            "Picture B": (0, 720, 340, 380),
            "Prompt": (420, 60, 400, 140),
            "Positive prompt": (420, 280, 400, 120),
            "Find the points": (900, 60, 400, 480),
            "Both pictures": (1380, 60, 640, 480),
            "Coordinates for SAM": (1380, 620, 640, 160),
            "Find what is marked": (900, 900, 400, 460),
            "Mask as picture": (1380, 900, 400, 80),
            "Mask in picture B": (1380, 1060, 400, 380),
        },
        {
            "1 · Model and pictures": (-20, -20, 380, 1140),
            "2 · Prompt for both": (400, -20, 440, 440),
            "3 · Points of A in B": (880, -20, 1160, 820),
            "4 · What is marked in A": (880, 820, 1160, 640),
        },
        """## Find it in another picture

Where in picture B is **this place** of picture A? The model's own features of both pictures are compared; it was never
taught this. An eye is found on another animal, a wheel on another car. Nothing is trained or sampled.

**Points** of A are written as [[x, y], ...] in pixels, or come from an editor node. *Coordinates* has the form that SAM
nodes take. **Mark** a thing in A (right click on *Picture A*, *Open in MaskEditor*), and its mask is found in B; B may
be a batch.

**Try**: *noise_level* 0.1 to find the same thing again, 0.3 to 0.5 for its counterpart on a different thing · *block*
output.8, finer · *keep* mutual · a prompt for both pictures, such as *a photo of a dog*.

**To run it** choose any SD 1.x, SD 2.x or SDXL checkpoint and two pictures of the size it was trained on (128 × 128 for
the toy checkpoint of the tests).

Source: Tang, Jia, Wang, Phoo, Hariharan, *Emergent Correspondence from Image Diffusion*, NeurIPS 2023 (DIFT).""",
        (-20, 1180, 860, 360),
    ),
    "09_teach_regions": Page(
        {
            "Checkpoint": (0, 60, 340, 120),
            "Picture that teaches": (0, 260, 340, 380),
            "Picture to search": (0, 720, 340, 380),
            "Prompt": (420, 60, 400, 140),
            "Positive prompt": (420, 280, 400, 120),
            "Teach what is marked": (900, 60, 400, 460),
            "Find it": (900, 620, 400, 200),
            "Mask as picture": (1380, 60, 400, 80),
            "What was found": (1380, 220, 400, 380),
            "Uncertainty as picture": (1380, 700, 400, 80),
            "How uncertain": (1380, 860, 400, 380),
        },
        {
            "1 · Model and pictures": (-20, -20, 380, 1140),
            "2 · Prompt for all pictures": (400, -20, 440, 440),
            "3 · Teach, and find": (880, -20, 440, 860),
            "4 · Look": (1360, -20, 440, 1280),
        },
        """## Teach regions by a few pictures

**Mark** a thing in *Picture that teaches* (right click, *Open in MaskEditor*); it is found in *Picture to search*,
which may be a batch. Ten small perceptrons learn from the model's own features which pixel is what; the model does not
change.

**One picture** teaches little beyond its own colours and shapes; five to twenty teach what a thing is. Join them with
*Batch Images* and their masks with *Batch Masks*. Up to four classes: *mask_2* to *mask_4*, with a name each.

**save_as** keeps what was learnt for other workflows: there *Find Regions* needs only its name in *file*, and the same
checkpoint. **How uncertain**: where the perceptrons disagree; mark such places in a further picture.

**To run it** choose any SD 1.x, SD 2.x or SDXL checkpoint and pictures of the size it was trained on (128 × 128 for the
toy checkpoint of the tests).

Source: Baranchuk, Rubachev, Voynov, Khrulkov, Babenko, *Label-Efficient Semantic Segmentation with Diffusion Models*,
ICLR 2022.""",
        (-20, 1180, 860, 380),
    ),
    "10_refined_attention": Page(
        {
            **_BASE,
            "Words": (420, 720, 400, 440),
            "Where the subject is": (420, 1240, 400, 400),
            **_MASKED,
            "What the words attend to": (1380, 1040, 420, 420),
        },
        {
            **_BASE_GROUPS,
            "3 · Which words, and where": (400, 660, 440, 1000),
            **_MASKED_GROUPS,
        },
        """## Refined attention: masks that follow outlines

As workflow 02, with two changes in *Where the subject is*: **refine 1** sharpens the maps with the model's own
self-attention, and the threshold is **otsu**. The mask then fills the subject up to its outline.

**Try**: *refine* 2 with the rule mean · *refine_layers* · *parts* = largest, where the mask has stray spots ·
*fill_holes* · *role* all or scene · denoise 0.9.

**To run it** choose any SD 1.x or 2.x checkpoint and a picture of the size it was trained on (512 × 512 for SD 1.5;
128 × 128 for the toy checkpoint of the tests).

Source: as workflow 02; *refine*: Wang et al., *Diffusion Model is Secretly a Training-free Open Vocabulary Semantic
Segmenter*.""",
        (-20, 880, 380, 600),
    ),
    "11_show_attention": Page(
        {
            "Checkpoint": (0, 60, 340, 120),
            "Empty latent": (0, 260, 340, 140),
            "Prompt, sampler and attention": (420, 60, 480, 1240),
            "Result": (980, 60, 420, 480),
        },
        {
            "1 · Model and size": (-20, -20, 380, 440),
            "2 · Generate and look": (400, -20, 520, 1340),
            "3 · Result": (960, -20, 460, 580),
        },
        """## Show attention: a normal generation that explains itself

One node encodes the prompt, samples as KSampler does, bit for bit, and shows **where the model looked at each word**.

**Words**: click one below the prompt to make it a subject ●, the scene ▲, or neither. **After a run** hover over the
picture to rank the words at a place, click a word for its map, and move the slider through the steps.

**Try**: other prompts and samplers · *over_steps* = sum, and Saliency to Mask at *saliency*, for a MASK of a word.

**To run it** choose any SD 1.x, SD 2.x or SDXL checkpoint, and in *Empty latent* the size it was trained on (512 × 512
for SD 1.5; 128 × 128 for the toy checkpoint of the tests).""",
        (0, 480, 340, 560),
    ),
    "12_prompt_to_prompt": Page(
        {
            "Checkpoint": (0, 60, 340, 120),
            "Empty latent": (0, 260, 340, 140),
            "Source prompt": (420, 60, 400, 140),
            "Target prompt": (420, 280, 400, 140),
            "Source": (420, 500, 400, 120),
            "Target": (420, 700, 400, 120),
            "Negative prompt": (420, 900, 400, 140),
            "What is taken over": (900, 60, 420, 620),
            "Words of the source": (900, 800, 420, 400),
            "Words of the target": (900, 1280, 420, 400),
            "Where the source's subject is": (1400, 800, 400, 400),
            "Where the target's subject is": (1400, 1280, 400, 400),
            "Source and target together": (1400, 60, 400, 240),
            "Sampler": (1400, 380, 400, 300),
            "Decode": (1900, 60, 400, 80),
            "Sampler of the source": (1900, 880, 400, 320),
            "Decode the source": (1900, 1280, 400, 80),
            "Result": (2380, 60, 420, 480),
            "Source picture": (2380, 620, 420, 480),
            "How much of the source is left": (2380, 1180, 420, 200),
        },
        {
            "1 · Model and size": (-20, -20, 380, 440),
            "2 · Old and new prompt": (400, -20, 440, 1080),
            "3 · What the new picture takes over": (880, -20, 940, 720),
            "4 · Where it may differ": (880, 720, 940, 980),
            "5 · Results": (1880, -20, 940, 1420),
        },
        """## Prompt-to-Prompt: change a word and keep the picture

The sampler makes the picture of the *source prompt* beside that of the *target prompt*, in one batch and from the same
noise. *Prompt-to-Prompt* gives the target the source's attention in the first part of the run: 0.8 of the steps for
words, 0.4 for shapes (the paper's values). Outside the masks the source is kept (*LocalBlend*).

**Try**: more or fewer words in the target prompt · *weights*: dog: 2 · *self_end* 0.2 for a thing of another shape ·
*word_windows*: cat: 0.4 · a picture of yours: *noised reference*, with the encoded picture as latent and *reference*.

The second sampler shows the source alone; it is what the first one makes beside the result.

**To run it** choose any SD 1.x, SD 2.x or SDXL checkpoint, and in *Empty latent* the size it was trained on (512 × 512
for SD 1.5; for the toy checkpoint of the tests 128 × 128, and *self_coarser* 2).

Source: Hertz et al., *Prompt-to-Prompt Image Editing with Cross Attention Control*.""",
        (0, 500, 340, 880),
    ),
}

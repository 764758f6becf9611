"""What is read from the workflow that runs: which node it is, and which texts are encoded before it."""

from explainable_latents.nodes.host.graph import encoding_nodes, identity, running
from explainable_latents.nodes.host.same_prompt import encoded_texts


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


GRAPH = {
    "1": node("CheckpointLoaderSimple", ckpt_name="a"),
    "2": node("CLIPSetLastLayer", clip=["1", 1], stop_at_clip_layer=-2),
    "3": node("CLIPTextEncode", clip=["2", 0], text="a dog"),
    "4": node("CLIPTextEncode", clip=["1", 1], text="a cat"),
    "5": node("ConditioningCombine", conditioning_1=["3", 0], conditioning_2=["4", 0]),
    "6": node("KSampler", model=["1", 0], positive=["5", 0], seed=1),
    "7": node("CLIPTextEncode", clip=["1", 1], text="behind the sampler"),
}


def test_a_node_is_the_same_under_other_ids_and_another_one_when_anything_before_it_changes():
    renamed = {
        f"x{name}": node(
            each["class_type"],
            **{
                key: [f"x{value[0]}", value[1]] if isinstance(value, list) else value
                for key, value in each["inputs"].items()
            },
        )
        for name, each in GRAPH.items()
    }
    assert identity(GRAPH, "6") == identity(renamed, "x6")
    changed = {**GRAPH, "2": node("CLIPSetLastLayer", clip=["1", 1], stop_at_clip_layer=-1)}
    assert identity(changed, "6") != identity(GRAPH, "6")
    assert identity(changed, "4") == identity(GRAPH, "4")
    assert identity(GRAPH, "of a loop") is None


def test_a_chain_of_any_length_has_an_identity():
    chain = {str(i): node("LoraLoaderModelOnly", model=[str(i - 1), 0]) for i in range(1, 5000)}
    chain["0"] = GRAPH["1"]
    assert identity(chain, "4999") != identity(chain, "4998")


def test_the_texts_that_are_encoded_before_a_node():
    assert sorted(encoded_texts(GRAPH, "6")) == ["a cat", "a dog"]


def test_what_encodes_the_positive_conditioning_is_found_through_guiders_and_nodes_that_combine():
    guided = GRAPH | {
        "8": node("FluxGuidance", conditioning=["3", 0], guidance=3.5),
        "9": node("CFGGuider", model=["1", 0], positive=["8", 0], negative=["4", 0], cfg=3.0),
        "10": node("SamplerCustomAdvanced", guider=["9", 0], latent_image=["11", 0]),
        "11": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    }
    assert encoding_nodes(guided, "10") == [GRAPH["3"]]
    assert sorted(each["inputs"]["text"] for each in encoding_nodes(GRAPH, "6")) == ["a cat", "a dog"]


def test_nothing_runs_outside_the_hosts_execution():
    assert running() is None

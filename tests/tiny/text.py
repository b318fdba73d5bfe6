"""Tokenizers and text encoders made from Python alone: a few whole words, single characters for all else."""

import re
import string
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers.pre_tokenizers import ByteLevel
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

# Untyped on purpose, as diffusers is in `images`.
tf: Any = import_module("transformers")

WIDTH = 16
WORDS = (
    "a",
    "red",
    "green",
    "blue",
    "circle",
    "square",
    "triangle",
    "moving",
    "left",
    "right",
    "up",
    "down",
    "on",
    "black",
    "gray",
)
CHARACTERS = tuple(string.ascii_letters + string.digits + string.punctuation)
CLIP_SPECIALS = ("<|startoftext|>", "<|endoftext|>")
LLAMA_SPECIALS = ("<unk>", "<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CHAT_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VISION_SPECIALS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
CHAT_VOCABULARY = 512

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} "
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>{% endfor %}"
)
CHAT_OF_USER_ONLY = CHAT.replace("in messages", "in messages if m['role'] == 'user'")


def clip_tokenizer() -> PreTrainedTokenizerBase:
    """One token a character, 77 at most."""
    tokens = (*CLIP_SPECIALS, *CHARACTERS, *(f"{c}</w>" for c in CHARACTERS))
    return tf.CLIPTokenizer(vocab=_numbered(tokens), merges=[], model_max_length=77)


def t5_tokenizer() -> PreTrainedTokenizerBase:
    """Unigrams: the likely pieces are whole words, the unlikely ones characters."""
    specials = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    pieces = [("▁", -3.0), *((f"▁{word}", -2.0) for word in WORDS), *((c, -9.0) for c in CHARACTERS)]
    return tf.T5Tokenizer(vocab=specials + pieces, extra_ids=0, model_max_length=512)


def llama_tokenizer() -> PreTrainedTokenizerBase:
    """Knows the words of HunyuanVideo's template, which at one token a character would crowd out the prompt."""
    words = (*WORDS, *re.findall("[A-Za-z]+", DEFAULT_PROMPT_TEMPLATE["template"]))
    vocabulary, merges = _word_merges(words, "▁", (*LLAMA_SPECIALS, "▁", *CHARACTERS))
    return tf.LlamaTokenizer(
        vocab=vocabulary,
        merges=merges,
        pad_token="</s>",
        padding_side="right",
        additional_special_tokens=list(LLAMA_SPECIALS[3:]),
    )


def chat_tokenizer(template: str, *, seeing: bool = False) -> PreTrainedTokenizerBase:
    """Byte-level tokens under a chat `template`; long system messages stay long, as their cropping expects."""
    marks = (*CHAT_SPECIALS, *(VISION_SPECIALS if seeing else ()))
    vocabulary, merges = _word_merges(WORDS, "Ġ", (*marks, *sorted(ByteLevel.alphabet())))
    specials = list(marks[1:])
    return tf.Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, additional_special_tokens=specials, chat_template=template
    )


def _word_merges(words: Iterable[str], space: str, base: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-pair vocabulary of `base` and `words`; all merges grow from `space`, so that none conflict."""
    chains = [space + word for word in words]
    grown = [(chain[:end], chain[end]) for chain in chains for end in range(1, len(chain))]
    return _numbered((*base, *(left + right for left, right in grown))), list(dict.fromkeys(grown))


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def clip_encoder(*, projection: bool = False) -> PreTrainedModel:
    """CLIP's text model, of width and projection `WIDTH`."""
    config = tf.CLIPTextConfig(
        vocab_size=2 * len(CHARACTERS) + len(CLIP_SPECIALS),
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return (tf.CLIPTextModelWithProjection if projection else tf.CLIPTextModel)(config)


def t5_encoder(width: int = WIDTH, *, multilingual: bool = False) -> PreTrainedModel:
    """T5's encoder, or UMT5's, of `width`; large enough a vocabulary for ByT5 too."""
    sizes = {"vocab_size": 384, "d_model": width, "d_kv": 8, "d_ff": 2 * width, "num_layers": 2, "num_heads": 2}
    sizes |= {"feed_forward_proj": "gated-gelu", "dropout_rate": 0.0}
    if multilingual:
        return tf.UMT5EncoderModel(tf.UMT5Config(**sizes))
    return tf.T5EncoderModel(tf.T5Config(**sizes))


def llama_encoder() -> PreTrainedModel:
    """Llama of three layers: HunyuanVideo reads the third state from the end."""
    vocabulary = len(llama_tokenizer())
    config = tf.LlamaConfig(**_decoder(layers=3), vocab_size=vocabulary, pad_token_id=2)
    return tf.LlamaModel(config)


def qwen3_encoder() -> PreTrainedModel:
    """Qwen3 of 27 layers: Flux2Klein reads states 9, 18 and 27."""
    return tf.Qwen3ForCausalLM(tf.Qwen3Config(**_decoder(layers=27), vocab_size=CHAT_VOCABULARY, head_dim=8))


def qwen3_model() -> PreTrainedModel:
    """Qwen3 without its head, of two layers: Z-Image reads the last state but one."""
    return tf.Qwen3Model(tf.Qwen3Config(**_decoder(layers=2), vocab_size=CHAT_VOCABULARY, head_dim=8))


def gemma2_encoder() -> PreTrainedModel:
    """Gemma 2 of one layer, for Sana."""
    return tf.Gemma2Model(tf.Gemma2Config(**_decoder(layers=1), vocab_size=CHAT_VOCABULARY, head_dim=8))


def gemma3_encoder() -> PreTrainedModel:
    """Gemma 3 whole, two layers; its vision half is there for its type and never run."""
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8}
    text = {**_decoder(layers=2), "vocab_size": CHAT_VOCABULARY, "head_dim": 8}
    config = tf.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return tf.Gemma3ForConditionalGeneration(config)


def clip_vision_encoder(size: int = 32) -> PreTrainedModel:
    """CLIP's picture encoder, of width and projection `WIDTH`, patches of 8."""
    config = tf.CLIPVisionConfig(
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=size,
        patch_size=8,
    )
    return tf.CLIPVisionModelWithProjection(config)


def clip_image_processor(size: int = 32) -> Any:
    """CLIP's preparation of pictures."""
    return tf.CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def siglip_encoder() -> PreTrainedModel:
    """SigLIP's picture encoder, of width 8: four tokens of a picture of 16."""
    config = tf.SiglipVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return tf.SiglipVisionModel(config)


def llava_encoder() -> PreTrainedModel:
    """Llama with eyes: 16 tokens for a picture of 32; HunyuanVideo reads the third state from the end."""
    tokens = llama_tokenizer()
    words = tf.LlamaConfig(**_decoder(layers=3), vocab_size=len(tokens) + 1, pad_token_id=2)
    config = tf.LlavaConfig(
        text_config=words,
        vision_config=clip_vision_encoder().config,
        image_token_index=len(tokens),
        pad_token_id=2,
        vision_feature_layer=-1,
    )
    return tf.LlavaForConditionalGeneration(config)


def qwen_processor() -> Any:
    """Qwen2-VL's preparation of texts and pictures; few pixels, so that few tokens.

    Without that of clips, which needs torchvision: such a processor can be used, and neither saved nor loaded.
    """
    module = import_module("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    processor = tf.Qwen2VLProcessor.__new__(tf.Qwen2VLProcessor)
    tokenizer = chat_tokenizer(CHAT, seeing=True)
    processor.image_processor = module.Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=56 * 56)
    processor.tokenizer, processor.video_processor, processor.chat_template = tokenizer, None, CHAT
    for kind in ("image", "video"):
        token = f"<|{kind}_pad|>"
        setattr(processor, f"{kind}_token", token)
        setattr(processor, f"{kind}_token_id", tokenizer.convert_tokens_to_ids(token))
    return processor


def qwen_text_encoder() -> PreTrainedModel:
    """The text half of Qwen2.5-VL, three layers: HunyuanVideo 1.5 reads the third state from the end."""
    return tf.Qwen2_5_VLTextModel(tf.Qwen2_5_VLTextConfig(**_qwen_text(layers=3)))


def qwen_vision_encoder(*, seeing: bool = False) -> PreTrainedModel:
    """Qwen2.5-VL whole; its vision half is there for its type and never run, unless it is `seeing`."""
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": WIDTH}
    tokens = chat_tokenizer(CHAT, seeing=True) if seeing else None
    names = {"image_token_id": "<|image_pad|>", "vision_start_token_id": "<|vision_start|>"}
    ids = {} if tokens is None else {name: tokens.convert_tokens_to_ids(token) for name, token in names.items()}
    config = tf.Qwen2_5_VLConfig(text_config=_qwen_text(layers=2), vision_config=vision, **ids)
    return tf.Qwen2_5_VLForConditionalGeneration(config)


def mistral_encoder() -> PreTrainedModel:
    """Mistral 3 whole, 30 layers: Flux2 reads states 10, 20 and 30; its vision half is never run."""
    vision = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    text = {"model_type": "mistral", "vocab_size": CHAT_VOCABULARY, "head_dim": 8, **_decoder(layers=30)}
    return tf.Mistral3ForConditionalGeneration(tf.Mistral3Config(text_config=text, vision_config=vision))


def _qwen_text(layers: int) -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return {**_decoder(layers), "vocab_size": CHAT_VOCABULARY, "rope_parameters": rope}


def _decoder(layers: int) -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }

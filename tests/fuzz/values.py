"""Values that stand where others are wanted: of other types, too large, too deep, or made to get out."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

SECRET = "hush-hush-secret"


class Raw(str):
    """YAML as it is, neither quoted nor escaped."""

    __slots__ = ()


NUMBERS: list[Any] = [
    *(0, -1, 1, 7, 2**31, 2**63, 2**64 + 1, 10**30, -(10**30), 0.5, -0.0, 1e308, 1e-308),
    *map(Raw, (".nan", ".inf", "-.inf", "1e3", "0x10", "0o17", "1_000", "12:30:00", "9" * 120, "9" * 5000)),
]
TEXTS: list[Any] = [
    *("", " ", "x", "a\0b", "\0", "\ud800", "\udfff\ud800", "\x1b[31mred", "a\nb", "a\rb", "tab\there", "\u202e\u2028"),
    *("x" * 300, "y" * 5000, "/", ".", "..", "~", "~/x", "~nobody-of-that-name/x", "-x", "--help", "%s%n{0}", "a b;c"),
    *("../../up", "../up.txt", "/etc/passwd", "/dev/zero", "/dev/stdin", "/dev/null", "/proc/self/mem", "con:cat|a"),
    *("fifo", "sparse.yaml", "sparse.txt", "folder", "loop", "socket", "nope.txt", "job.yaml", "base.yaml", "p.csv"),
    *("$(touch up)", "`touch up`", "<script>alert(1)</script>", "quotes \" and '", "\N{PILE OF POO}", "\uffff", "\x85"),
    *(
        "${MY_TOKEN}",
        "a${MY_TOKEN}b",
        "${MY_TOKEN:-x}",
        "${HOST}",
        "${NOPE}",
        "${NOPE:-3}",
        "${NOPE:?why}",
        "${",
        "$${x}",
    ),
    *(
        "latest",
        "auto",
        "none",
        "null",
        "true",
        "ropa",
        "sequential",
        "psnr",
        "slurm",
        "inline",
        "50%",
        "101%",
        "04:00:00",
    ),
    *("https://example.org/x", "org/name", "org/../name", "demo-image", "demo-video", "first_block", "float32", "cuda"),
]
OTHERS: list[Any] = [
    *(
        None,
        True,
        False,
        [],
        {},
        [[]],
        [None],
        {"": 1},
        {"kind": "ropa"},
        {"kind": None},
        {"a": {"b": {"c": 1}}},
        [1, "a"],
    ),
    *map(
        Raw,
        (
            "2026-01-31",
            "!!binary aGk=",
            "!!python/object/apply:os.system ['touch up']",
            "!!str 3",
            "!!int x",
            "!x y",
            "!!set {a}",
            "&a [*a]",
            "&b {x: *b}",
            "*nowhere",
            "[" * 60 + "]" * 60,
            "{a: " * 45 + "1" + "}" * 45,
            "{<<: {a: 1}}",
            "{a: 1, a: 2}",
            "{? [1] : 2}",
            "| \n  a\n  b",
            "'unclosed",
            "[1, 2",
            "{a: b: c}",
            "@x",
            "\t- a",
        ),
    ),
]

ODD = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from(OTHERS),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
)
"""Any of them, or one that hypothesis thinks of."""

PLACES = [
    *("name", "model", "prompts", "seeds", "sampling", "solver", "cache", "attention", "parallel", "objective"),
    *("launch", "output", "score", "gates", "nightly", "matrix", "extends", "sedes", "a\nb", "", "<<"),
    *("model.adapter", "model.checkpoint", "model.revision", "model.dtype", "model.device", "model.offload"),
    *(
        "model.vae",
        "model.vae.tiling",
        "model.compile",
        "model.quantization",
        "model.quantization.backend",
        "model.encode",
    ),
    *("prompts.file", "prompts.limit", "prompts.suite", "prompts.coco", "prompts.sample", "prompts.dimensions"),
    *("prompts.full_info", "prompts.seed", "seeds.0", "prompts.0"),
    *("sampling.steps", "sampling.guidance_scale", "sampling.height", "sampling.width", "sampling.num_frames"),
    *("sampling.negative_prompt", "sampling.scheduler", "sampling.scheduler.kind", "sampling.scheduler.shift"),
    *("sampling.options", "sampling.options.eta", "sampling.options.generator", "sampling.options.prompt"),
    *("sampling.options.image", "sampling.options.sigmas", "sampling.options.a\0b", "sampling.options.clip_skip"),
    *("solver.kind", "solver.workers", "solver.tolerance", "solver.max_rounds", "solver.warmup", "cache.kind"),
    *("cache.threshold", "cache.interval", "parallel.data", "parallel.time", "parallel.cfg", "parallel.ring"),
    *("parallel.ulysses", "parallel.elastic", "parallel.backend"),
    *("launch.kind", "launch.processes", "launch.threads", "launch.max_attempts", "launch.setup", "launch.setup.0"),
    *(
        "launch.partition",
        "launch.array",
        "launch.at_once",
        "launch.nodes",
        "launch.gpus",
        "launch.time",
        "launch.agent",
    ),
    *("launch.options", "launch.options.mem", "launch.options.dependency", "launch.options.output", "launch.template"),
    *("launch.then", "launch.then.0", "launch.then.0.step", "launch.then.0.options", "launch.then.0.options.mem"),
    *("output.dir", "output.save_latents", "output.format", "output.fps", "output.crf", "score.0", "score.0.kind"),
    *("score.0.checkpoint", "gates.psnr", "gates.psnr.min", "gates.psnr.max", "gates.psnr.max_missing", "gates.x\ny"),
    *("nightly.baseline", "nightly.at", "nightly.keep", "nightly.notify", "nightly.notify.command"),
    *(
        "nightly.notify.command.0",
        "nightly.notify.timeout_s",
        "matrix.solver",
        "matrix.solver.0",
        "matrix.sampling.steps",
    ),
    *(
        "matrix.sampling.options.eta",
        "matrix.seeds",
        "matrix.model",
        "matrix.prompts",
        "matrix.launch",
        "matrix.solver.workers",
    ),
]
"""Where a job may say something, and where it may not; a number is an index of a list."""

FITTING: list[tuple[str, Any]] = [
    *(("name", name) for name in ("a", "0", "A.b_c-d", "x" * 80)),
    *(("seeds", seeds) for seeds in ([3], [0, 1, 2], [2**63 - 1], [7, 0])),
    *(("prompts", prompts) for prompts in (["\N{PILE OF POO}"], ["a", "b", "c"], {"file": "p.csv"}, {"file": "p.txt"})),
    *(("sampling.steps", steps) for steps in (1, 2, 17, 100)),
    *(("sampling.guidance_scale", scale) for scale in (0, 1, 7.5)),
    *(("sampling.negative_prompt", text) for text in ("", "blurry", "a\nb")),
    *(("solver", solver) for solver in ("sequential", "ropa", "parataa", "paradigms", {"kind": "ropa", "workers": 3})),
    *(("cache", cache) for cache in ("none", {"kind": "none"})),
    ("attention", "native"),
    *(("objective", objective) for objective in ("latency", "throughput")),
    *(("parallel", parallel) for parallel in ({"data": 2}, {"data": "auto", "elastic": True}, {"time": "auto"})),
    *(("launch.kind", kind) for kind in ("inline", "torchrun", "slurm")),
    *(("launch.threads", threads) for threads in (1, 4)),
    *(("launch.max_attempts", count) for count in (1, 5)),
    *(("launch.setup", lines) for lines in ([], ["module load cuda"], ["export A='${MY_TOKEN}'", "echo $HOME"])),
    *(("output.dir", folder) for folder in ("out", "a b/c", "runs", "../here/runs")),
    *(("output.save_latents", flag) for flag in (True, False)),
    *(("output.crf", crf) for crf in (0, 18, 51)),
    *(("output.fps", fps) for fps in (1, 60)),
    *(("score", score) for score in ([], ["psnr"], ["latent_rmse", "ssim"], [{"kind": "psnr"}])),
    *(("matrix", matrix) for matrix in ({"seeds": [[0], [1]]}, {"sampling.steps": [2, 3]}, {"solver.kind": ["ropa"]})),
    *(("nightly", nightly) for nightly in ({"at": "23:59"}, {"keep": 1, "baseline": "last"}, {})),
    ("model", "demo-image"),
    *(("model", {"adapter": "demo-image", "device": "cpu", "dtype": dtype}) for dtype in ("float32", "bfloat16")),
]
"""Places with something that may stand there; not all go together."""

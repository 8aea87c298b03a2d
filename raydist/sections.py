"""The sections of the settings: frozen, one for each stage and part; each value with its bounds, unit and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from raydist.records import Remote


def _split(value: Any) -> Any:
    """A list as `--set` and the environment write it: `plain, brief`."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


_Word = TypeVar("_Word")
_Words = Annotated[tuple[_Word, ...], BeforeValidator(_split)]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Scan(Section):
    """[scan] files -> videos and clips. The first four belong to the archive once it is made."""

    clip_seconds: float = Field(default=30.0, ge=0.1, le=86_400, description="length of a clip")
    min_clip_seconds: float = Field(default=2.0, ge=0, le=86_400, description="a shorter last span is dropped")
    naming: str = Field(default="", description="template of pre-cut clip names: {video}_{index}; empty: videos")
    index_base: int = Field(default=0, ge=0, description="index of the first pre-cut clip of a video")
    probes: int = Field(default=0, ge=0, description="probing processes in the cluster; 0: one a core")

    @field_validator("naming")
    @classmethod
    def _has_both_fields(cls, naming: str) -> str:
        if naming and (naming.count("{video}") != 1 or naming.count("{index}") != 1):
            raise ValueError("expected {video} and {index} once each, such as {video}_{index}")
        return naming


class Decode(Section):
    """[decode] how clips are decoded, and what one may cost before it fails."""

    cpu_s: float = Field(default=30.0, gt=0, description="CPU seconds a clip; a hang ends at five times that")
    memory_mb: int = Field(default=896, ge=256, description="memory of a decoding process, beyond its first 100 MB")
    megapixels: float = Field(default=67.2, gt=0, description="pixels of one picture, in millions")
    threads: int = Field(
        default=1, ge=1, le=16, description="threads of a decoder for 4K pictures and larger; clips run side by side"
    )
    cpus: float = Field(
        default=0.0,
        ge=0,
        le=64,
        description="logical cores of a decoding process; 0: one, less where that fits all, more where memory is short",
    )
    hwaccel: str = Field(
        default="",
        pattern="^(|cuda|vaapi|qsv|videotoolbox|vulkan|drm|amf)$",
        description="hardware that decodes what it can, such as cuda; memory_mb then does not hold; empty: none",
    )


class Source(Section):
    """[source] how files on servers are read. Credentials are no settings: they come from the usual places."""

    endpoint: str = Field(
        default="", description="URL of an S3-compatible server; empty: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, Amazon"
    )
    region: str = Field(default="", description="of the S3 buckets; empty: AWS_REGION, else as the bucket says")
    anonymous: bool = Field(default=False, description="read public buckets without credentials")
    connect_s: float = Field(default=10.0, gt=0, le=600, description="seconds for a connection")
    read_s: float = Field(default=30.0, gt=0, le=3600, description="seconds without a byte after which a try ends")
    tries: int = Field(default=6, ge=1, le=100, description="tries a request, with growing pauses between them")
    whole_mb: int = Field(
        default=1024, ge=0, description="largest file that is downloaded whole from a server that reads no ranges"
    )
    whole_s: float = Field(
        default=900.0, gt=0, le=86_400, description="seconds that such a download may take, its tries included"
    )

    def remote(self) -> Remote:
        """As the part that opens sources takes it."""
        kept = self.model_dump(exclude={"whole_mb"})
        return Remote(**kept, whole_bytes=self.whole_mb << 20)


class Embed(Section):
    """[embed] clips -> vectors."""

    model: str = Field(
        default="",
        description="a name, a folder or a hub repository; empty: the archive's only model, else viclip-b16",
    )
    adapter: str = Field(default="", description="a LoRA adapter: a run of the archive, or a folder; empty: none")
    sampling: Literal["exact", "fast"] = Field(
        default="exact",
        description="frames of a clip: exact, or fast: key frames nearby, which cost less; a table of its own",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: GPUs where there are")
    batch: int = Field(default=0, ge=0, description="clips per forward pass; 0: 64 on a GPU, 16 on a CPU")
    decoders: int = Field(default=0, ge=0, description="decoding processes in the cluster; 0: one a core")
    encoders: int = Field(default=0, ge=0, description="encoder processes in the cluster; 0: one a GPU, or one a node")
    encoder_cpus: float = Field(
        default=0.5, ge=0.1, le=1024, description="logical cores of an encoder, or kept from decoders beside its GPU"
    )
    threads: int = Field(
        default=0, ge=0, le=1024, description="threads of an encoder on CPUs; 0: its share of the cores"
    )
    commit_s: float = Field(default=60.0, gt=0, description="seconds between commits")
    commit_rows: int = Field(default=100_000, ge=1, description="rows after which a commit comes sooner")


class Caption(Section):
    """[caption] clips -> captions, from a list (`--from`) or by a model (`--provider`). Keys are no settings: they come
    from the environment. The columns are those of the list; empty: guessed, and said."""

    path_column: str = Field(default="", description="column that names the file or the clip")
    text_column: str = Field(default="", description="column of the captions")
    start_column: str = Field(default="", description="column of the start in the file: seconds, or h:m:s")
    end_column: str = Field(default="", description="column of the end in the file")
    time_column: str = Field(default="", description="column of a moment in the file, where there is no start")
    provider: Literal["", "gemini", "openai", "local"] = Field(
        default="", description="who captions: gemini, openai (any server that speaks its API), local (transformers)"
    )
    model: str = Field(default="", description="the provider's model; local: a folder or a hub repository")
    base_url: str = Field(default="", description="address of the provider's server; empty: the provider's own")
    hints: str = Field(default="", max_length=4_000, description="what your videos show and how to speak of it")
    details: _Words[Literal["plain", "brief", "full"]] = Field(
        default=("plain",), min_length=1, max_length=3, description="captions of a clip: a sentence, some words, more"
    )
    captioned: Literal["skip", "add"] = Field(
        default="skip", description="clips that have a caption of another origin: leave them alone, or add one"
    )
    send: Literal["frames", "clip"] = Field(
        default="frames", description="what a provider gets: pictures, or the clip itself as a small mp4 (gemini)"
    )
    frames: int = Field(default=8, ge=1, le=64, description="pictures of a clip that are sent")
    frame_px: int = Field(default=384, ge=64, le=4096, description="longest edge of what is sent")
    requests_per_minute: int = Field(default=0, ge=0, description="of the whole run, on all nodes; 0: no limit")
    tokens_per_minute: int = Field(default=0, ge=0, description="of the whole run, in and out; 0: no limit")
    in_flight: int = Field(default=16, ge=1, le=4096, description="requests under way at a time, on all nodes")
    tries: int = Field(default=6, ge=1, le=100, description="tries a request, with growing pauses between them")
    timeout_s: float = Field(default=120.0, gt=0, le=3600, description="seconds that an answer may take")
    retry_after_s: float = Field(
        default=120.0, ge=0, le=3600, description="longest pause between tries, whatever Retry-After asks for"
    )
    max_cost: float = Field(default=0.0, ge=0, description="money that a run may spend, as the prices say; 0: any")
    prices: str = Field(default="", description="TOML file of prices that go before the bundled ones")
    batch_api: bool = Field(
        default=False, description="the provider's batch API: half the price, within a day (gemini)"
    )
    batch_clips: int = Field(default=500, ge=1, le=10_000, description="clips of one job of the batch API")
    batch_jobs: int = Field(default=4, ge=1, le=1_000, description="jobs of the batch API under way at a time")
    decoders: int = Field(default=0, ge=0, description="decoding processes in the cluster; 0: one a core")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="of a local model")
    local_batch: int = Field(default=0, ge=0, description="clips at a time of a local model; 0: 8 on a GPU, 1 on a CPU")
    commit_s: float = Field(default=60.0, gt=0, description="seconds between commits")
    commit_rows: int = Field(default=5_000, ge=1, description="clips after which a commit comes sooner")


class Train(Section):
    """[train] clips and captions -> a LoRA adapter. The model is `embed.model`."""

    batch: int = Field(default=64, ge=2, description="clips of a step, over all workers")
    micro_batch: int = Field(
        default=0, ge=0, description="clips a forward pass holds for its gradient; 0: the whole share of a worker"
    )
    epochs: int = Field(default=50, ge=1, description="at most; the horizon of the learning rate's schedule")
    learning_rate: float = Field(default=1e-4, gt=0, description="of AdamW, after the warm-up")
    weight_decay: float = Field(default=0.01, ge=0, description="of AdamW, on matrices only")
    warm_up: float = Field(default=0.05, ge=0, lt=1, description="share of all steps in which the rate rises")
    clip_norm: float = Field(default=1.0, gt=0, description="norm that gradients are clipped to")
    rank: int = Field(default=32, ge=1, le=1024, description="of the LoRA matrices")
    alpha: float = Field(default=64.0, gt=0, description="LoRA's scale is alpha / rank")
    learn_temperature: bool = Field(
        default=False, description="train the model's temperature too, held at 0.01 or more"
    )
    checkpointing: bool = Field(default=False, description="compute activations again on the way back, to save memory")
    eval_steps: int = Field(default=100, ge=1, description="steps between evaluations; epochs end with one too")
    eval_clips: int = Field(default=1000, ge=2, description="held-out clips of an evaluation, at most")
    patience: int = Field(default=10, ge=1, description="whole epochs without a better evaluation loss, then it stops")
    checkpoint_steps: int = Field(default=100, ge=1, description="steps after which a crash can lose no more")
    seed: int = Field(default=0, ge=0, description="of the order of clips, the choice of captions and the adapter")
    workers: int = Field(default=0, ge=0, description="DDP processes; 0: one a GPU, or one on CPUs")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: GPUs where there are")
    jitter: bool = Field(default=False, description="take one of three frames of an interval, another each epoch")
    flip: bool = Field(default=False, description="mirror half of the clips; not where captions say left or right")
    cache: Literal["raw", "jpeg", "none"] = Field(
        default="raw",
        description="frames on disk: raw, jpeg (q95), none: decode each epoch",
    )
    cache_gb: float = Field(default=50.0, gt=0, description="disk that cached frames may take in the archive")
    leaks: Literal["move", "report"] = Field(
        default="move", description="copies of clips across splits: move videos, or only say"
    )


class Eval(Section):
    """[eval] retrieval accuracy on held-out clips, base against adapter. The models are those of [embed]."""

    split: Literal["train", "val", "test"] = Field(default="test", description="whose clips are searched")
    resamples: int = Field(default=2_000, ge=100, le=100_000, description="of the bootstrap that gives intervals")
    seed: int = Field(default=0, ge=0, description="of the resamples and of the paired test")
    strips: int = Field(default=8, ge=0, le=100, description="largest gains, and as many losses, shown with pictures")


class Dedup(Section):
    """[dedup] vectors, and frames of candidate pairs -> copies, groups, keepers. The model is that of [embed]."""

    threshold: float = Field(default=0.95, gt=0, lt=1, description="cosine from which two clips are a pair")
    read: bool = Field(default=True, description="read the frames of pairs again, to tell copies from look-alikes")
    drop: Literal["copies", "similar"] = Field(
        default="copies", description="which pairs make a clip redundant: copies, or similar: every pair of vectors"
    )
    keep: _Words[Literal["longest", "largest", "bit_rate", "oldest"]] = Field(
        default=("longest", "largest", "bit_rate", "oldest"), description="which video of a group stays: first that"
    )
    cover: float = Field(default=0.9, gt=0, le=1, description="share of a clip that kept clips must show to drop it")
    tasks: int = Field(default=0, ge=0, description="tasks of the join at a time; 0: one a core")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: GPUs where there are")


class Search(Section):
    """[search] words, a picture, a clip or a video -> ranked moments."""

    top: int = Field(default=10, ge=1, le=100_000, description="hits a query")
    moment_s: float = Field(
        default=120.0, ge=0, description="seconds of a moment of neighbouring clips; 0: each clip is a hit of its own"
    )
    per_video: int = Field(default=0, ge=0, description="hits of one video; 0: any number")
    min_score: float | Literal["auto", "none"] = Field(
        default="none", description="least cosine of a hit; auto: measured for the model and the archive; none: any"
    )
    hybrid: bool = Field(default=False, description="look for the words in captions too")
    index_rows: int = Field(
        default=100_000, ge=0, description="vectors from which on embed keeps an index of them; 0: never"
    )
    unindexed: float = Field(
        default=0.1, ge=0, lt=1, description="share of the vectors outside the index before embed refreshes it"
    )
    recall: float = Field(
        default=0.95, ge=0.5, le=1, description="share of the ten nearest that a search through the index aims at"
    )


class Report(Section):
    """[report] what an hour costs, for `raydist report`."""

    core_hour_price: float = Field(default=0.0, ge=0, description="money for an hour of a core; 0: not reckoned")
    gpu_hour_price: float = Field(default=0.0, ge=0, description="money for an hour of a GPU; 0: not reckoned")
    currency: str = Field(default="USD", description="of these prices")


class Ray(Section):
    """[ray] where the work runs."""

    address: str = Field(default="", description="of a Ray cluster; empty: RAY_ADDRESS, else this machine alone")
    max_cpus: int = Field(
        default=0,
        ge=0,
        description="CPUs that the cluster may grow to by itself; 0: as its autoscaler says, if it does",
    )
    max_gpus: int = Field(
        default=0,
        ge=0,
        description="GPUs that the cluster may grow to by itself; 0: as its autoscaler says, if it does",
    )
    cpus: int = Field(default=0, ge=0, description="cores to use on this machine alone; 0: all")
    temp_dir: str = Field(default="", description="folder for Ray's own files on this machine; empty: Ray's choice")
    object_store_gb: float = Field(
        default=0.0, ge=0, description="memory of Ray's object store on this machine alone; 0: Ray's choice"
    )
    spill_dir: str = Field(
        default="", description="folder for objects that do not fit there, on this machine alone; empty: temp_dir"
    )
    spill_until: float = Field(
        default=0.95, gt=0, le=1, description="share of that disk in use, by anybody, from which on nothing goes there"
    )

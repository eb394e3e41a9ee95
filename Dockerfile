# GPU image: docker build -t resd .
# CPU image: docker build -t resd:cpu --build-arg BASE=ubuntu:24.04 --build-arg EXTRAS= \
#              --build-arg TORCH=2.13.0+cpu --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu .
# How to run it: docs/cluster.md. PyTorch 2.13 is built for CUDA 13.0; vLLM decides the version square.
ARG BASE=nvidia/cuda:13.0.2-devel-ubuntu24.04
FROM ${BASE}

# A C compiler is what Triton and torch.compile need; the distribution's own versions will do.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv

ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ARG TORCH=2.13.0
ARG EXTRAS=vllm==0.32.0
ARG PIP_EXTRA_INDEX_URL=
# hadolint ignore=DL3013
RUN pip install torch==${TORCH} transformers==5.19.0 ${EXTRAS}

COPY . /opt/resd
RUN pip install torch==${TORCH} /opt/resd && rm -r /opt/resd/build /opt/resd/resd.egg-info

# Not root. Any other user works too (docker run --user), hence a home that is open to all.
RUN useradd --create-home --uid 10001 resd && mkdir --mode 1777 /data && chmod 1777 /home/resd
ENV HOME=/home/resd USER=resd LOGNAME=resd
USER 10001
WORKDIR /data

# An image that cannot make two updates is not built.
RUN python -m resd.train task=manufactoria steps=2 evaluation.before=false evaluation.limit=4 run_dir=/tmp/check \
    && rm -r /tmp/check
# A run is alive as long as its main process is; a poll would only take time from it.
HEALTHCHECK NONE

# PET_NPROC_PER_NODE, PET_NNODES, … in the environment are torchrun's own options.
ENTRYPOINT ["torchrun", "-m", "resd.train"]

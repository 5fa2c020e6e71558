# make docker builds it. The volume /work takes models/, checkpoints/, stats/ and videos/:
#   docker run --rm -v "$PWD:/work" --user "$(id -u)" mario-rl mario-train --run-name first --stage 1-1
# With a GPU: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 ..., docker run --gpus all ...
FROM python:3.13-slim
RUN apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY . /source
RUN pip install --no-cache-dir --extra-index-url $TORCH_INDEX -c /source/constraints.txt /source[report,export]
RUN pip install --no-cache-dir --no-deps -r /source/requirements-no-deps.txt
RUN useradd --create-home mario && mkdir /work && chown mario /work
USER mario
WORKDIR /work
VOLUME /work
HEALTHCHECK CMD ["mario-eval", "--help"]
CMD ["mario-eval", "--help"]

# The server and its workers. torch is the build that constraints.txt pins; for GPUs, start from an image that has CUDA's.
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt '/src[merge,postgres,server]' \
 && rm -rf /src \
 && useradd --create-home --uid 1000 loreg \
 && install --directory --owner=1000 --group=1000 /home/loreg/data /home/loreg/data/tmp
# An ordinary user, by number, so that orchestrators can see that it is not root. All that it writes lies in one folder:
# the rest may be mounted read-only.
USER 1000:1000
ENV LOREG_HOME=/home/loreg/data TMPDIR=/home/loreg/data/tmp
VOLUME /home/loreg/data
EXPOSE 8470
ENTRYPOINT ["loreg"]
CMD ["serve", "--host", "0.0.0.0"]

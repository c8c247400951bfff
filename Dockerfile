# The server and its workers. torch is the build that constraints.txt pins; for GPUs, start from an image that has CUDA's.
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt '/src[merge,postgres,server]' \
 && rm -rf /src \
 && useradd --create-home loreg
USER loreg
ENV LOREG_HOME=/home/loreg/data
EXPOSE 8470
ENTRYPOINT ["loreg"]
CMD ["serve", "--host", "0.0.0.0"]

FROM python:3.13-slim

COPY kvdb /opt/kvdb/kvdb
ENV PYTHONPATH=/opt/kvdb PYTHONDONTWRITEBYTECODE=1 KVDB_HOST=0.0.0.0

RUN useradd --system --uid 10001 kvdb && mkdir /data && chown kvdb /data
USER kvdb
WORKDIR /data
VOLUME /data
EXPOSE 4242 8000 9888 11211

# Any answer counts as healthy; with a password set, the answer is an error.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-m", "kvdb.healthcheck"]

# The port can be reached from outside, so a password is wanted:
#     docker run -p 4242:4242 -e KVDB_PASSWORD=secret kvdb
# or a file (-e KVDB_PASSWORD_FILE=/run/secrets/kvdb). Where everybody who can reach the port may
# use it: -e KVDB_NO_PROTECTION=1. The data is /data/kvdb.json, unless KVDB_DATA or an argument says
# something else; every flag may be given behind the name of the image.
ENTRYPOINT ["python", "-m", "kvdb"]

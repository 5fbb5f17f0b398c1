FROM python:3.13-slim

COPY kvdb /opt/kvdb/kvdb
ENV PYTHONPATH=/opt/kvdb PYTHONDONTWRITEBYTECODE=1 KVDB_HOST=0.0.0.0 KVDB_DATA=/data/kvdb.json

RUN useradd --system --uid 10001 kvdb && mkdir /data && chown kvdb /data
USER kvdb
VOLUME /data
EXPOSE 4242

# Any answer will do: with a password set it is an error, and the server is well all the same.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import os, socket; s = socket.create_connection(('127.0.0.1', int(os.environ.get('KVDB_PORT', 4242))), 3); s.sendall(b'PING\\r\\n'); assert s.recv(1) in (b'+', b'-')"]

# Listening beyond loopback wants a password: mount a file and set KVDB_PASSWORD_FILE to its
# path. Where everybody who can reach the port may use it, set KVDB_NO_PROTECTION=1 instead.
ENTRYPOINT ["python", "-m", "kvdb"]

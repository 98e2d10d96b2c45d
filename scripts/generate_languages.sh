#!/bin/sh
# Generates Go and Java from the protos into out/gen by buf.gen.yaml, and checks that their stubs are there.
set -eu
cd "$(dirname "$0")/.."
for plugin in protoc-gen-go protoc-gen-go-grpc protoc grpc_java_plugin; do
    if ! command -v "$plugin" >/dev/null; then
        echo "NOT RUN, no $plugin: Go and Java need apt-get install protoc-gen-go protoc-gen-go-grpc" \
            "protobuf-compiler protobuf-compiler-grpc-java-plugin"
        exit 0
    fi
done
requirements/buf/node_modules/.bin/buf generate
for service in base orchestrator superres text_encoder tokenizer; do
    test -s "out/gen/go/muse/$service/v1/${service}_grpc.pb.go"
done
for stub in base/v1/Base orchestrator/v1/Orchestrator superres/v1/Superres text_encoder/v1/TextEncoder \
    tokenizer/v1/Tokenizer; do
    test -s "out/gen/java/muse/${stub}ServiceGrpc.java"
done

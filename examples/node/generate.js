// Generates a picture from Node: node generate.js "a fox on blue" [ADDRESS] [FILE]
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [prompt, address = "127.0.0.1:50050", file = "fox.png"] = process.argv.slice(2);
if (prompt === undefined) {
  console.error("usage: node generate.js PROMPT [ADDRESS] [FILE]");
  process.exit(2);
}

// The .proto files are read as they are; nothing is generated.
const definition = protoLoader.loadSync("muse/orchestrator/v1/orchestrator.proto", {
  includeDirs: [fileURLToPath(new URL("../../protos", import.meta.url))],
  keepCase: true, // fields are called as in the .proto files
  longs: String, // seeds have 64 bits, more than a number holds
  defaults: true,
  oneofs: true, // `response.event` names the event that is set
});
const { OrchestratorService } = grpc.loadPackageDefinition(definition).muse.orchestrator.v1;

const client = new OrchestratorService(address, grpc.credentials.createInsecure(), {
  // The default of 4 MiB would lose the pictures of large edits.
  "grpc.max_receive_message_length": 72 * 2 ** 20,
});

const call = client.Generate(
  { prompt, seed: "7", progress: true, base: { steps: 12 } },
  { deadline: Date.now() + 60_000 },
);
call.on("data", (response) => {
  switch (response.event) {
    case "progress":
      console.log(`${response.progress.stage} ${response.progress.step}/${response.progress.total}`);
      break;
    case "image":
      writeFileSync(file, response.image.png);
      console.log(`${file}, seed ${response.image.seed}`);
      break;
    case "done":
      console.log(`done after ${response.done.total_s.toFixed(2)} s`);
  }
});
call.on("error", (error) => {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
});
call.on("end", () => client.close());

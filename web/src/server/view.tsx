import { Endpoints } from "./endpoints";
import { Jobs } from "./jobs";
import { Plots } from "./plots";
import { Replicas } from "./replicas";

export function ServerView({ onUnauthorized }: { onUnauthorized: () => void }) {
  return (
    <div class="server">
      <Replicas />
      <Plots onUnauthorized={onUnauthorized} />
      <Jobs />
      <Endpoints />
    </div>
  );
}

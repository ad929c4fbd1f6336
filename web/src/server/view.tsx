import { Endpoints } from "./endpoints";
import { Plots } from "./plots";
import { Replicas } from "./replicas";

export function ServerView({ onUnauthorized }: { onUnauthorized: () => void }) {
  return (
    <div class="server">
      <Replicas />
      <Plots onUnauthorized={onUnauthorized} />
      <Endpoints />
    </div>
  );
}

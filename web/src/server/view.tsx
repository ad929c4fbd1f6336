import { Endpoints } from "./endpoints";
import { Jobs } from "./jobs";
import { Plots } from "./plots";
import { Replicas } from "./replicas";

interface ServerViewProps {
  isAdministrators: boolean;
  onUnauthorized: () => void;
}

export function ServerView({ isAdministrators, onUnauthorized }: ServerViewProps) {
  return (
    <div class="server">
      {!isAdministrators && (
        <>
          <Replicas />
          <Plots onUnauthorized={onUnauthorized} />
          <Jobs />
        </>
      )}
      <Endpoints />
    </div>
  );
}

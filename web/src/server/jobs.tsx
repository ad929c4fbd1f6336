import { useEffect, useState } from "preact/hooks";

import { json, send } from "../api/http";

interface Job {
  id: string;
  state: string;
  position: number | null;
  step: number | null;
  steps: number | null;
  created_at: string;
}

const POLL_MS = 3000;
const SHOWN = 20;

/** One's own: those of the key that one has signed in with. A server without jobs has none to show. */
export function Jobs() {
  const [jobs, setJobs] = useState<Job[]>([]);
  const load = () => void json<{ jobs: Job[] }>("jobs").then((found) => setJobs(found.jobs), () => setJobs([]));
  useEffect(() => {
    load();
    const timer = setInterval(() => document.hidden || load(), POLL_MS);
    return () => clearInterval(timer);
  }, []);
  if (jobs.length === 0) return null;
  return (
    <section class="card" aria-label="Jobs">
      <h2>
        Jobs <span class="quiet">of this key, the newest first</span>
      </h2>
      <ul class="plain">
        {jobs.slice(0, SHOWN).map((job) => (
          <JobRow key={job.id} job={job} onChanged={load} />
        ))}
      </ul>
    </section>
  );
}

const KINDS: Record<string, string> = { succeeded: "good", failed: "bad" };

function JobRow({ job, onChanged }: { job: Job; onChanged: () => void }) {
  const isLive = job.state === "queued" || job.state === "running";
  const cancel = () => void send(`jobs/${encodeURIComponent(job.id)}`, { method: "DELETE" }).then(onChanged, onChanged);
  return (
    <li class="row wrap">
      <code>{job.id.slice(0, 8)}</code>
      <span class={`state ${KINDS[job.state] ?? ""}`}>{job.state}</span>
      <span class="quiet">
        {new Date(job.created_at).toLocaleTimeString()}
        {job.position !== null && ` · ${job.position} in the queue`}
        {job.step !== null && job.steps !== null && ` · step ${job.step} of ${job.steps}`}
      </span>
      {isLive && (
        <button class="quiet" onClick={cancel}>
          Cancel
        </button>
      )}
    </li>
  );
}

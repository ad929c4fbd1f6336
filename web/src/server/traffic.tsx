import { useState } from "preact/hooks";

import { setTraffic } from "../api/arm";
import { messageOf } from "../api/http";
import { NoteLines } from "../parts/field";
import { Slider } from "../parts/slider";

interface TrafficProps {
  endpoint: string;
  names: string[];
  traffic: Record<string, number>;
  onChanged: () => void;
}

/** Percentages; together 100, or 0 for none. */
export function Traffic({ endpoint, names, traffic, onChanged }: TrafficProps) {
  const [shares, setShares] = useState(traffic);
  const [error, setError] = useState<string>();
  const sum = names.reduce((all, name) => all + (shares[name] ?? 0), 0);
  const isChanged = names.some((name) => (shares[name] ?? 0) !== (traffic[name] ?? 0));
  async function save() {
    try {
      await setTraffic(endpoint, shares);
      setError(undefined);
      onChanged();
    } catch (failure) {
      setError(messageOf(failure));
    }
  }
  return (
    <fieldset class="field">
      <legend>Traffic</legend>
      {names.map((name) => (
        <Slider
          key={name}
          label={`${name}, %`}
          {...{ min: 0, max: 100, step: 1, value: shares[name] ?? 0 }}
          onChange={(value) => setShares(balanced(names, shares, name, value))}
        />
      ))}
      <div class="row">
        <button class="primary" disabled={!isChanged || (sum !== 100 && sum !== 0)} onClick={() => void save()}>
          Move the traffic
        </button>
        {sum !== 100 && <span class="quiet">{sum} % in all; it must be 100, or 0 for none.</span>}
      </div>
      <NoteLines id={`traffic-${endpoint}`} notes={{ error }} />
    </fieldset>
  );
}

/** With two deployments the other one takes the rest. */
function balanced(names: string[], shares: Record<string, number>, moved: string, value: number): Record<string, number> {
  const [other] = names.filter((name) => name !== moved);
  return names.length === 2 && other !== undefined
    ? { ...shares, [moved]: value, [other]: 100 - value }
    : { ...shares, [moved]: value };
}

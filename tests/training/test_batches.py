"""What the flow is shown: parts of pictures, pictures of other sizes, and where captions of kinds lead it."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
import torch

pytest.importorskip("resvg_py", reason="pip install -r training/sprite/requirements.txt")
pytest.importorskip("sentencepiece", reason="pip install -r training/sprite/requirements.txt")

from tests.training.conftest import begin
from training.sprite.data.captions import SILENCE, Said, negative_background, negative_thing
from training.sprite.data.places import BACKGROUNDS
from training.sprite.data.scenes import Scene, has_held_out_part
from training.sprite.data.things import kind_of, things
from training.sprite.networks.devices import device
from training.sprite.networks.network import Taught, encoded_text, load_transformer, new_transformer
from training.sprite.networks.text import load_text_encoders
from training.sprite.stages import restore, shards
from training.sprite.stages.batches import WHOLE, Batch, Shares, batch
from training.sprite.stages.flow import _layout_loss
from training.sprite.stages.settling import (
    DEAREST,
    EARLY,
    GUIDED_WEIGHT,
    NEGATIVE_SCALE,
    SIGMAS,
    STRAIGHT,
    STRAIGHT_WEIGHT,
    WEIGHT,
    bought,
    guided_loss,
    led_to,
    negative_words,
    open_to,
    settle,
)

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Three small shards of scenes, made once; nobody writes to them."""
    with pytest.MonkeyPatch.context() as patch:
        begin(tmp_path_factory.mktemp("work"), patch)
        patch.setattr(shards, "SHARD_SCENES", 64)
        restore.restore()
        shards.encode_shards(range(3))
        yield


def batches(shares: Shares) -> Iterator[Batch]:
    return (batch(8, shares, Random(seed)) for seed in range(100))


def test_a_view_of_a_picture_has_all_its_things_and_tokens_for_each_of_its_patches(encoded: None) -> None:
    for rows in list(batches(Shares(other_sizes=0)))[:20]:
        assert rows.grid == WHOLE
        assert rows.latents.shape[:2] == rows.layouts.shape[:2] == (8, len(rows.image_ids))
        shown = [set(layout[:, 0].int().tolist()) - {0} for layout in rows.layouts]
        in_scene = [{1 + thing for thing in (scene.first, scene.second) if thing >= 0} for scene in rows.scenes]
        assert shown == in_scene


def test_pictures_of_other_sizes_come_as_often_as_they_should(encoded: None) -> None:
    grids = [rows.grid for rows in batches(Shares(other_sizes=0.3))]

    assert set(grids) == {WHOLE, (6, 6)}
    assert 15 < grids.count((6, 6)) < 45


def test_batches_of_kinds_name_no_thing_and_have_nothing_but_things_alone(encoded: None) -> None:
    ordinary = list(batches(Shares(0, 0, 0, kinds=0)))
    of_kinds = list(batches(Shares(0, 0, 0, kinds=1)))

    assert all(rows.is_open.all() for rows in of_kinds)
    assert 10 < sum(len(rows.image_ids) == 64 for rows in of_kinds) < 45
    assert {scene.relation for rows in of_kinds for scene in rows.scenes} == {"one"}
    assert not any(rows.is_open.all() for rows in ordinary)
    assert 0.3 < sum(bool(rows.is_open.all()) for rows in batches(Shares(0, 0, 0, kinds=0.5))) / 100 < 0.7


def test_some_captions_are_mistaken_and_never_without_saying_so(encoded: None) -> None:
    truthful, mistaken = list(batches(Shares(mistaken=0))), list(batches(Shares(mistaken=1, kinds=0)))

    assert not any(rows.is_mistaken.any() for rows in truthful)
    assert 0.4 < torch.stack([rows.is_mistaken for rows in mistaken]).float().mean() < 0.8


def test_what_names_a_kind_is_led_on_and_settles_on_one_of_it(encoded: None) -> None:
    rows = next(rows for rows in batches(Shares(0, 0, 0)) if _leaves_open(rows).sum() > 1)
    noise, sigma = torch.randn_like(rows.latents), torch.full((8,), 0.2, device=rows.latents.device)

    settled, led, reached = settle(Taught(load_transformer()), load_text_encoders(), rows, noise, sigma, 1.0, Random(0))

    is_led = reached[:8] != sigma
    assert is_led[_leaves_open(rows)].all()
    assert torch.equal(led[:8][~is_led], noise[~is_led])
    assert torch.equal(settled.latents[:8][~is_led], rows.latents[~is_led])
    assert settled.said[:8] == rows.said
    share = torch.ones(8, device=reached.device)
    share[settled.twice] = 0.5
    share[[row for row in settled.unseen if row < 8]] *= STRAIGHT_WEIGHT
    assert torch.allclose(settled.weights[:8], torch.where(is_led, share * WEIGHT * reached[:8] ** 2, 1.0))
    for row in is_led.nonzero().flatten().tolist():
        scene = settled.scenes[row]
        assert scene.first in kind_of(rows.scenes[row].first).members
        assert not has_held_out_part(scene)
        in_scene = {1 + thing for thing in (scene.first, scene.second) if thing >= 0}
        assert set(settled.layouts[row, :, 0].int().tolist()) - {0} == in_scene


def test_what_is_led_away_is_there_again_with_its_negative_prompt(encoded: None) -> None:
    taught, encoders = Saying(), load_text_encoders()
    led_away = 0
    for seed, rows in enumerate(list(batches(Shares(0, 0, 0)))[:10]):
        noise, sigma = torch.randn_like(rows.latents), torch.full((8,), 0.2, device=rows.latents.device)
        settled, led, reached = settle(taught, encoders, rows, noise, sigma, 1.0, Random(seed))
        led_away += len(settled.twice)
        assert len(settled.said) == len(reached) == len(led) == 8 + len(settled.twice)
        for again, row in enumerate(settled.twice, 8):
            scene, words = settled.scenes[again], settled.said[again]
            assert scene == settled.scenes[row]
            assert torch.equal(settled.layouts[again], settled.layouts[row])
            assert (again in settled.unseen) == (row in settled.unseen)
            if row not in settled.unseen:
                assert words.contradicts(scene) or not (words.first or words.background)
                assert torch.equal(settled.latents[again], settled.latents[row])
                assert torch.equal(led[again], led[row])
            assert (reached[again], settled.weights[again]) == (reached[row], settled.weights[row])

    assert led_away > 10


def test_where_guidance_leads_from_what_is_open_it_goes_straight_until_there_is_something_to_see(encoded: None) -> None:
    taught, encoders = Saying(), load_text_encoders()
    torch.manual_seed(0)
    went_straight = turned = 0
    for seed, rows in enumerate(list(batches(Shares(0, 0, 0)))[:10]):
        noise, sigma = torch.randn_like(rows.latents), torch.full((8,), 0.2, device=rows.latents.device)
        settled, led, reached = settle(taught, encoders, rows, noise, sigma, 1.0, Random(seed))
        said = encoded_text(encoders, settled.texts, rows.view.text_length)[0].mean((1, 2))
        answers = led - settled.latents
        for again, row in enumerate(settled.twice, 8):
            if reached[row] > STRAIGHT[0] and _leaves_open(rows)[row]:
                went_straight += 1
                assert not settled.is_seen[row]
                assert settled.scenes[row] == rows.scenes[row]
                assert torch.allclose(answers[row], said[row], atol=1e-4)
                assert torch.allclose(answers[again], said[again], atol=1e-4)
                whole = said[again] + NEGATIVE_SCALE * (said[row] - said[again])
                noisy = torch.lerp(settled.latents[row], led[row], reached[row])
                assert torch.allclose(torch.lerp(settled.latents[again], led[again], reached[again]), noisy, atol=1e-4)
                assert torch.allclose(noisy, noise[row] - (1 - reached[row]) * whole, atol=1e-4)
            else:
                turned += int(_leaves_open(rows)[row])
                assert settled.is_seen[row]
                assert torch.equal(answers[row], answers[again])

    assert 0.4 < went_straight / (went_straight + turned) < 0.9


def test_a_middle_that_has_nothing_to_see_is_asked_nothing(encoded: None) -> None:
    rows = next(batches(Shares(0, 0, 0)))
    seen = torch.randn(*rows.layouts.shape[:2], len(things()) + 4 + len(BACKGROUNDS), device=rows.latents.device)
    elsewhere = rows.layouts.clone()
    elsewhere[[2, 5], :, 0] = 1 + (elsewhere[[2, 5], :, 0] + 1) % len(things())

    assert _layout_loss(seen, replace(rows, layouts=elsewhere)) != _layout_loss(seen, rows)
    unseen = replace(rows, unseen=[2, 5])
    assert _layout_loss(seen, replace(unseen, layouts=elsewhere)) == _layout_loss(seen, unseen)


class Listening(Taught):
    """Keeps all that it is asked."""

    def __init__(self) -> None:
        super().__init__(load_transformer())
        self.heard: list[dict[str, torch.Tensor]] = []

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.heard.append(inputs)
        return super().forward(**inputs)


def test_the_negative_prompt_that_a_row_is_led_away_from_is_the_one_it_is_there_again_with(encoded: None) -> None:
    taught, encoders = Listening(), load_text_encoders()
    rows = next(rows for rows in batches(Shares(0, 0, 0)) if _leaves_open(rows).sum() > 6)
    noise, sigma = torch.randn_like(rows.latents), torch.full((8,), 0.2, device=rows.latents.device)

    settled, _, _ = settle(taught, encoders, rows, noise, sigma, 1.0, Random(0))

    led = len(taught.heard[-1]["hidden_states"])
    negative, _ = encoded_text(encoders, [words.text for words in settled.said[8:]], rows.view.text_length)
    assert len({words.text for words in settled.said[8:]}) > 1
    assert torch.allclose(taught.heard[0]["encoder_hidden_states"][led:], negative, atol=1e-3)
    assert torch.equal(taught.heard[0]["hidden_states"][led:], noise[settled.twice])


def test_guidance_is_wrong_by_as_much_as_it_multiplies_what_is_between_two_answers(encoded: None) -> None:
    rows = replace(next(batches(Shares(0, 0, 0))), twice=[2, 5])  # again as the rows 8 and 9
    rows = replace(rows, weights=torch.arange(10.0, device=rows.latents.device))
    wrong = torch.zeros(10, 16, 128, device=rows.latents.device)
    for row, by in {2: 1.0, 8: 1.0, 5: 1.0, 9: 2.0}.items():
        wrong[row] = by
    alike, apart = 1.0, 2 + NEGATIVE_SCALE * (1 - 2)

    assert guided_loss(wrong, replace(rows, twice=[])) == 0
    assert guided_loss(wrong, rows).item() == pytest.approx(2 * GUIDED_WEIGHT * (2 * alike**2 + 5 * apart**2) / 10)


def test_what_leaves_nothing_open_is_led_on_with_and_without_guidance_and_stays_what_it_is(encoded: None) -> None:
    taught, encoders = Saying(), load_text_encoders()
    led = guided = 0
    for seed in range(8):
        rows = batch(32, Shares(0, 0, 0, kinds=0), Random(seed))
        noise, sigma = torch.randn_like(rows.latents), torch.full((32,), 0.2, device=rows.latents.device)
        settled, _, reached = settle(taught, encoders, rows, noise, sigma, 1.0, Random(seed))
        for row, (scene, words) in enumerate(zip(rows.scenes, rows.said, strict=True)):
            if scene.relation != "empty" and not words.is_open and words.background:
                led, guided = led + 1, guided + int(row in settled.twice)
                assert reached[row] != sigma[row]
                assert settled.scenes[row] == scene
                assert torch.equal(settled.latents[row], rows.latents[row])

    assert led > 60
    assert 0.3 < guided / led < 0.7


def test_early_rows_that_leave_nothing_open_stay_where_they_are(encoded: None) -> None:
    rows = next(rows for rows in batches(Shares(0, 0, 0, kinds=0)) if 1 < _leaves_open(rows).sum() < 6)
    noise, sigma = torch.randn_like(rows.latents), torch.full((8,), EARLY + 0.01, device=rows.latents.device)

    _, led, reached = settle(Taught(load_transformer()), load_text_encoders(), rows, noise, sigma, 1.0, Random(0))

    stays = ~_leaves_open(rows)
    assert (reached[:8][stays] == sigma[stays]).all()
    assert torch.equal(led[:8][stays], noise[stays])
    assert (reached[:8][~stays] != sigma[~stays]).all()


def test_nothing_that_a_caption_names_is_ever_unwanted() -> None:
    fox = next(thing.index for thing in things() if thing.name == "fox")
    said = Said("a fox on red", 1 + fox, 0, 1, 1 + BACKGROUNDS.index("red"), 0, 1, 1)
    prices = torch.zeros(len(things()))

    unwanted = [negative_words(said, Scene("one", "red", fox), prices, Random(seed)) for seed in range(8000)]

    assert all(words.text for words in unwanted)
    assert fox not in {words.first - 1 for words in unwanted}
    assert "red" not in {BACKGROUNDS[words.background - 1] for words in unwanted if words.background}
    assert 0.4 < sum(not (words.first or words.background) for words in unwanted) / len(unwanted) < 0.6


def test_a_mistaken_caption_leads_nowhere(encoded: None) -> None:
    rows = next(rows for rows in batches(Shares(0, 0, 1)) if (_leaves_open(rows) & rows.is_mistaken).sum() > 1)
    noise, sigma = torch.randn_like(rows.latents), torch.full((8,), 0.2, device=rows.latents.device)

    _, led, _ = settle(Taught(load_transformer()), load_text_encoders(), rows, noise, sigma, 1.0, Random(0))

    assert torch.equal(led[:8][rows.is_mistaken], noise[rows.is_mistaken])


def test_a_pair_before_no_background_in_particular_is_led_on_as_it_is(encoded: None) -> None:
    taught, encoders = Saying(), load_text_encoders()
    led = 0
    for seed, rows in enumerate(list(batches(Shares(0, 0, 0, kinds=0)))[:40]):
        if not any(
            scene.second >= 0 and not words.background for scene, words in zip(rows.scenes, rows.said, strict=True)
        ):
            continue
        noise, sigma = torch.randn_like(rows.latents), torch.full((8,), 0.2, device=rows.latents.device)
        settled, _, reached = settle(taught, encoders, rows, noise, sigma, 1.0, Random(seed))
        for row, (scene, words) in enumerate(zip(rows.scenes, rows.said, strict=True)):
            if scene.second >= 0 and not words.background:
                led += int(reached[row] != sigma[row])
                assert settled.scenes[row] == scene
                assert scene.background == "white"

    assert led > 1


def test_of_pure_noise_only_what_names_its_thing_is_led_on(encoded: None) -> None:
    rows = next(rows for rows in batches(Shares(0, 0, 0)) if 1 < (_leaves_open(rows) & ~rows.is_open).sum() < 5)
    noise, sigma = torch.randn_like(rows.latents), torch.ones(8, device=rows.latents.device)

    _, _, reached = settle(Taught(load_transformer()), load_text_encoders(), rows, noise, sigma, 1.0, Random(0))

    assert (reached[:8][_leaves_open(rows) & ~rows.is_open] < 1).all()
    assert (reached[:8][rows.is_open] == 1).all()


def test_other_sizes_are_not_led_on(encoded: None) -> None:
    rows = next(rows for rows in batches(Shares(1, 0, 0)) if _leaves_open(rows).sum() > 1)
    noise, sigma = torch.randn_like(rows.latents), torch.full((8,), 0.2, device=rows.latents.device)

    assert settle(Taught(load_transformer()), load_text_encoders(), rows, noise, sigma, 1.0, Random(0))[0] is rows


class Standing(Taught):
    """Points to the same picture from everywhere, whatever the caption."""

    def __init__(self, guess: torch.Tensor) -> None:
        super().__init__(new_transformer())
        self.guess = guess

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        noisy = inputs["hidden_states"]
        return (noisy - self.guess) / inputs["timestep"][:, None, None], _nothing_seen(noisy)


def test_a_row_that_is_led_on_lies_between_what_the_flow_points_to_and_its_noise(encoded: None) -> None:
    rows = next(rows for rows in batches(Shares(0, 0, 0)) if _leaves_open(rows).sum() > 1)
    noise, sigma = torch.randn_like(rows.latents), torch.full((8,), 0.2, device=rows.latents.device)
    guess = torch.randn_like(rows.latents[0])

    settled, led, reached = settle(Standing(guess), load_text_encoders(), rows, noise, sigma, 1.0, Random(0))

    for row in _leaves_open(rows).nonzero().flatten().tolist():
        between = torch.lerp(guess, noise[row], reached[row])
        assert torch.allclose(torch.lerp(settled.latents[row], led[row], reached[row]), between, atol=1e-4)


class Saying(Taught):
    """Answers everywhere with what its caption says, which is one number, and keeps where it was asked."""

    def __init__(self) -> None:
        super().__init__(new_transformer())
        self.asked_at: list[torch.Tensor] = []

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked_at.append(inputs["timestep"])
        said = inputs["encoder_hidden_states"].mean((1, 2))[:, None, None]
        return said.expand_as(inputs["hidden_states"]).clone(), _nothing_seen(inputs["hidden_states"])


class Fading(Saying):
    """Answers less and less of it below pure noise."""

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        answer, seen = super().forward(**inputs)
        return answer * inputs["timestep"][:, None, None], seen


@pytest.mark.parametrize("steps", list(SIGMAS))
@pytest.mark.parametrize("guided", [[], [3, 1], [0, 1, 2, 3]])
def test_guidance_leads_away_from_the_negative_prompt_of_the_row_itself(guided: list[int], steps: int) -> None:
    noise, reached = torch.randn(4, 16, 128, device=device()), torch.tensor([0.2, 0.5, 0.9, 0.97], device=device())
    said = torch.arange(1.0, 5 + len(guided), device=device())
    text = said[:, None, None].expand(-1, 3, 8), said[:, None]
    ids = torch.zeros(16, 3, device=device())

    saying = Saying()
    with torch.no_grad():
        noisy, first = led_to(saying, ids, noise, text, guided, reached, steps)

    wanted = said[:4].clone()
    for number, row in enumerate(guided, 4):
        wanted[row] = said[number] + NEGATIVE_SCALE * (said[row] - said[number])
    assert torch.allclose(noisy, noise + ((reached - 1) * wanted)[:, None, None], atol=1e-4)
    assert torch.equal(first, said[:, None, None].expand(-1, 16, 128))
    with torch.no_grad():
        assert torch.equal(led_to(Fading(), ids, noise, text, guided, reached, steps)[1], first)
    from_noise = torch.arange(steps, device=device())[:, None] / steps
    assert torch.allclose(torch.stack(saying.asked_at)[:, :4], 1 - from_noise * (1 - reached), atol=1e-6)
    assert all(torch.equal(sigma[4:], sigma[guided]) for sigma in saying.asked_at)


def test_rows_are_led_only_as_far_as_so_many_steps_go(encoded: None) -> None:
    encoders = load_text_encoders()
    seen_steps, rows = set(), next(rows for rows in batches(Shares(0, 0, 0)) if _leaves_open(rows).sum() > 6)
    noise, sigma = torch.randn_like(rows.latents), torch.full((8,), 0.1, device=rows.latents.device)
    for seed in range(12):
        taught = Saying()
        settled, _, reached = settle(taught, encoders, rows, noise, sigma, 1.0, Random(seed))
        assert all(STRAIGHT[0] < level <= STRAIGHT[1] for level in reached[settled.unseen].tolist())
        reached[settled.unseen] = sigma[0]
        steps = len(taught.asked_at) - 1  # after them it is asked what is there
        lowest, highest = SIGMAS[steps]
        assert all(lowest <= level <= highest for level in reached[reached != sigma[0]].tolist())
        seen_steps.add(steps)

    assert seen_steps == set(SIGMAS)


def test_what_is_likeliest_comes_and_prices_let_others_come_that_are_nearly_as_likely() -> None:
    fox = next(thing.index for thing in things() if thing.name == "fox")
    members = sorted(kind_of(fox).members)
    kind = Said("an animal on red", 1 + len(things()), 0, 1, 1 + BACKGROUNDS.index("red"), 0, 1, 1)
    scene, scores = Scene("one", "red", fox), (torch.linspace(-5, 0, len(things())), torch.zeros(len(BACKGROUNDS)))
    prices = torch.zeros(len(things()))
    unwanted = negative_thing(members[-1], Random(0))

    assert bought(open_to(kind, scene, SILENCE), scores, prices.clone()).first == members[-1]
    assert bought(open_to(kind, scene, unwanted), scores, prices.clone()).first == members[-2]
    some = {bought(open_to(kind, scene, SILENCE), scores, prices).first for _ in range(100 * len(members))}
    nearly = {thing for thing in members if scores[0][thing] > scores[0][members[-1]] - DEAREST}
    assert 1 < len(some) < len(members)
    assert some <= nearly


def test_much_of_what_is_unwanted_is_what_comes_most() -> None:
    fox = next(thing.index for thing in things() if thing.name == "fox")
    members, prices = kind_of(fox).members, torch.zeros(len(things()))
    prices[members[3]] = prices[members[5]] = DEAREST
    kind = Said("an animal on red", 1 + len(things()), 0, 1, 1 + BACKGROUNDS.index("red"), 0, 1, 1)
    scene = Scene("one", "red", fox)
    anywhere = Said("a fox", 1 + fox, 0, 1, 0, 0, 1, 1)

    animals = [negative_words(kind, scene, prices, Random(seed)).first - 1 for seed in range(200)]
    behind = [BACKGROUNDS[negative_words(anywhere, scene, prices, Random(seed)).background - 1] for seed in range(200)]

    assert 55 < animals.count(members[3]) + animals.count(members[5]) < 100
    assert animals.count(members[3]) > 20 < animals.count(members[5])
    assert 25 < sum(animal not in members for animal in animals) < 75
    assert len(set(animals)) > 20
    assert 60 < behind.count("white") < 120
    assert len(set(behind)) > 15


def test_an_unsaid_background_is_open_but_for_what_is_unwanted_or_held_out() -> None:
    fox = next(thing.index for thing in things() if thing.name == "fox")
    said, scene = Said("a fox", 1 + fox, 0, 1, 0, 0, 1, 1), Scene("one", "white", fox)

    scenes = open_to(said, scene, negative_background("white", Random(0)))

    assert {scene.first for scene in scenes} == {fox}
    assert {scene.background for scene in scenes} == {
        name for name in BACKGROUNDS if name != "white" and not has_held_out_part(Scene("one", name, fox))
    }


def _nothing_seen(noisy: torch.Tensor) -> torch.Tensor:
    return noisy.new_zeros(*noisy.shape[:2], len(things()) + 4 + len(BACKGROUNDS))


def _leaves_open(rows: Batch) -> torch.Tensor:
    told = zip(rows.said, rows.scenes, strict=True)
    named = [scene.relation == "one" and (words.is_open or not words.background) for words, scene in told]
    return torch.tensor(named, device=rows.latents.device)

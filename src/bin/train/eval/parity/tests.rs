use shipwatch::mask::Rle;

use super::*;
use crate::data::fixtures;
use crate::eval::bootstrap::{AtMost, Clusters};
use crate::eval::chain::tests::bright;
use crate::eval::figures::tests::outcome;

/// Images of 30-pixel ships, found with an IoU of 0.8 and a Dice of 0.8, and as many without ships on
/// which nothing is found. The gate tells both apart.
fn images(count: usize) -> Vec<Outcome> {
    let nth = |i: usize| i as f32 / 1000.0;
    let ships = (0..count).map(|i| outcome(&[(30.0, 0.8)], 0.8, 1, 0.8 + nth(i)));
    let empty = (0..count).map(|i| outcome(&[], 1.0, 0, 0.1 + nth(i)));
    ships.chain(empty).collect()
}

fn judged(name: &str, outcomes: &[Outcome]) -> Judged {
    Judged {
        name: name.to_owned(),
        thresholds: Thresholds {
            gate: 0.5,
            classify: 0.5,
            mask: 0.5,
            min_area: 1,
            valley: None,
        },
        outcomes: outcomes.to_vec(),
    }
}

/// Compares `float` with what `change` makes of it.
fn parity(float: &[Outcome], change: impl Fn(usize, &mut Outcome)) -> Parity {
    let mut int8 = float.to_vec();
    for (index, outcome) in int8.iter_mut().enumerate() {
        change(index, outcome);
    }
    Parity::of(
        &[Split::Tune, Split::Test],
        &[judged("float", float), judged("int8", &int8)],
    )
}

fn fall(parity: &Parity, figure: Figure) -> AtMost {
    let loss = parity.losses[0].iter().find(|loss| loss.figure == figure);
    let change = loss.expect("listed").change.as_ref();
    change.expect("has both").fall
}

/// The one sentence of what is broken.
fn only(parity: &Parity) -> String {
    let breaches = parity.breaches();
    assert_eq!(breaches.len(), 1, "{breaches:?}");
    breaches.concat()
}

const MEDIUM: Figure = Figure::Iou(LENGTHS[2]);

#[test]
fn what_does_not_differ_falls_by_nothing_at_most() {
    let parity = parity(&images(40), |_, _| ());
    assert_eq!(parity.breaches(), [""; 0]);
    for loss in &parity.losses[0] {
        if let Some(change) = &loss.change {
            let nothing = AtMost {
                value: 0.0,
                bound: 0.0,
            };
            assert_eq!(change.fall, nothing, "{}", loss.figure);
        }
    }
    assert!(parity.to_string().contains("`int8` keeps all limits"));
}

#[test]
fn what_stays_within_limits_breaks_none() {
    let parity = parity(&images(40), |_, outcome| {
        if outcome.with_ships {
            outcome.dice -= 0.004;
            outcome.ships[0].iou -= 0.019;
        }
    });
    assert_eq!(parity.breaches(), [""; 0]);
    assert!((fall(&parity, Figure::DiceShips).bound - 0.004).abs() < 1e-12);
    // Half of all images show ships.
    assert!((fall(&parity, Figure::DiceAll).value - 0.002).abs() < 1e-12);
}

#[test]
fn each_limit_breaks_alone() {
    let dice = parity(&images(40), |_, outcome| {
        if outcome.with_ships {
            outcome.dice -= 0.006;
        }
    });
    let sentence = only(&dice);
    assert_eq!(
        sentence,
        "Dice ships: 0.8000 in float and 0.7940 in int8, a fall of 0.60 points that may be 0.60 (95 % bound, 40 \
         images of 40 different images), where 0.5 is the limit"
    );
    assert!(dice.to_string().contains(&format!("- {sentence}\n")));

    // Of 40 tiles with ships 2 fall below all without: 2 of 40 pairs are the wrong way round.
    let gate = parity(&images(40), |index, outcome| {
        if index < 2 {
            outcome.tiles[0].0 = 0.0;
        }
    });
    assert!(only(&gate).starts_with("gate AUC, tiles: 1.0000 in float and 0.9500 in int8"));
    assert!((fall(&gate, Figure::TileAuc).value - 0.05).abs() < 1e-12);
    assert!((fall(&gate, Figure::Recall).value - 0.05).abs() < 1e-12);
    // The images' own scores are no tile's.
    assert_eq!(fall(&gate, Figure::ImageAuc).value, 0.0);

    let length = parity(&images(40), |_, outcome| {
        for ship in &mut outcome.ships {
            ship.iou -= 0.021;
        }
    });
    assert!(only(&length).starts_with("IoU of ships of 20 to 40 pixels: 0.8000 in float"));
}

#[test]
fn a_length_with_under_thirty_ships_is_told_but_not_enforced() {
    // The others are longer, and keep what they had.
    let with = |ships: usize| {
        let mut float = images(40);
        for outcome in &mut float[ships..40] {
            outcome.ships[0].length = 50.0;
        }
        parity(&float, |index, outcome| {
            if index < ships {
                outcome.ships[0].iou -= 0.1;
            }
        })
    };
    let few = with(29);
    assert_eq!(few.breaches(), [""; 0]);
    assert!((fall(&few, MEDIUM).bound - 0.1).abs() < 1e-12);
    let text = few.to_string();
    let row = text
        .lines()
        .find(|line| line.contains("IoU of ships of 20 to 40"));
    let row = row.expect("reported");
    assert!(
        row.contains("not enforced") && row.contains("10.00"),
        "{row}"
    );
    assert!(only(&with(30)).contains("30 ships"));
}

#[test]
fn a_fall_that_may_be_chance_breaks_the_limit_all_the_same() {
    // Half of the 100 images lose 0.05, half gain it: no fall, with a standard error of
    // 0.05 / sqrt(100) = 0.005, so that one of 1.645 * 0.005 = 0.0082 cannot be excluded.
    let noisy = parity(&images(100), |index, outcome| {
        if outcome.with_ships {
            outcome.dice += if index % 2 == 0 { 0.05 } else { -0.05 };
        }
    });
    let found = fall(&noisy, Figure::DiceShips);
    assert!(found.value.abs() < 1e-12, "{found:?}");
    assert!((found.bound - 0.0082).abs() < 0.002, "{found:?}");
    assert!(only(&noisy).starts_with("Dice ships"));
}

#[test]
fn pairs_tell_more_than_two_samples_would() {
    // Images differ by far more than networks do on any of them.
    let mut float = images(60);
    for (index, outcome) in float.iter_mut().enumerate().filter(|(_, o)| o.with_ships) {
        outcome.dice = 0.2 + 0.01 * (index * 37 % 60) as f64;
    }
    let parity = parity(&float, |index, outcome| {
        if outcome.with_ships {
            outcome.dice -= if index % 2 == 0 { 0.001 } else { 0.005 };
        }
    });
    let found = fall(&parity, Figure::DiceShips);
    assert!((found.value - 0.003).abs() < 1e-12);
    // Per pair 0.002 from the mean: 1.645 * 0.002 / sqrt(60) = 0.0004 above it.
    assert!((found.bound - 0.0034).abs() < 0.0002, "{found:?}");
    // One sample alone: 1.645 * 0.173 / sqrt(60) = 0.037.
    let refs: Vec<&Outcome> = float.iter().collect();
    let sample = Clusters::by(&refs, |outcome| &outcome.cluster);
    let alone = sample.at_most(|some| Figure::DiceShips.of(some, 0.5));
    let alone = alone.expect("has ships");
    assert!(
        (alone.bound - alone.value - 0.037).abs() < 0.01,
        "{alone:?}"
    );
    assert_eq!(parity.breaches(), [""; 0]);
}

#[test]
fn images_that_show_one_thing_are_one_piece_of_evidence() {
    // Forty pairs, yet of four images each of which loses or gains all over.
    let mut float = images(40);
    for (index, outcome) in float.iter_mut().enumerate() {
        outcome.cluster = (index % 4).to_string();
    }
    let alike = |index: usize, outcome: &mut Outcome| {
        if outcome.with_ships {
            outcome.dice += if index % 4 < 2 { 0.05 } else { -0.05 };
        }
    };
    let few = parity(&float, alike);
    let many = parity(&images(40), alike);
    let bounds = [&few, &many].map(|parity| fall(parity, Figure::DiceShips).bound);
    // 1.645 * 0.05 / sqrt(40) = 0.013 against draws of four, the extreme ones of which are likely.
    assert!(
        (bounds[1] - 0.013).abs() < 0.003 && bounds[0] > 0.024,
        "{bounds:?}"
    );
    assert_eq!(few.losses[0][0].clusters, 4);
    assert!(only(&few).contains("4 different images with ships prove nothing"));
}

#[test]
fn nine_images_prove_nothing_and_ten_may() {
    let breach = only(&parity(&images(9), |_, _| ()));
    assert!(
        breach.contains("9 different images") && breach.contains("at least 10"),
        "{breach}"
    );
    assert_eq!(parity(&images(10), |_, _| ()).breaches(), [""; 0]);
}

#[test]
fn a_limit_without_a_figure_is_not_kept() {
    // Tiles with ships alone have no AUC; the report stands all the same.
    let mut float = images(20);
    float.truncate(20);
    for outcome in &mut float {
        outcome.tiles.truncate(1);
    }
    let parity = parity(&float, |_, _| ());
    assert!(only(&parity).starts_with("gate AUC, tiles: the 20 tiles"));
    assert!(parity.to_string().contains("gate AUC, tiles"));
}

#[test]
fn limits_hold_for_the_first_of_several_and_sets_stand_alone() {
    let mut float = images(20);
    for outcome in &mut float[..5] {
        outcome.set = "frames of test".to_owned();
    }
    let mut worse = float.clone();
    for outcome in &mut worse[..5] {
        outcome.dice = 0.4;
    }
    let all = [
        judged("float", &float),
        judged("int8", &float),
        judged("other", &worse),
    ];
    let parity = Parity::of(&[Split::Test], &all);
    assert_eq!(parity.breaches(), [""; 0]);
    // 5 of 20 images lose 0.4.
    let Some(change) = &parity.losses[1][0].change else {
        panic!("has both")
    };
    assert!((change.fall.value - 0.1).abs() < 1e-12);
    let names: Vec<&str> = parity.sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["all images", "", "frames of test"]);
    let dice: Vec<Option<f64>> = parity.sets[2].whole.iter().map(|of| of[0]).collect();
    let near = |value: Option<f64>, wanted: f64| value.is_some_and(|v| (v - wanted).abs() < 1e-12);
    assert!(
        near(dice[0], 0.8) && near(dice[1], 0.8) && near(dice[2], 0.4),
        "{dice:?}"
    );
    assert_eq!((parity.sets[2].images, parity.sets[2].with_ships), (5, 5));
    // Against the first int8 network: float, then the others.
    let against: Vec<&str> = parity
        .agreements
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(against, ["float", "other"]);
}

#[test]
fn all_contenders_see_the_same_cases_by_their_own_thresholds() {
    let dir = tempfile::tempdir().expect("folder");
    let pool = fixtures::pool(dir.path());
    let text = "name = \"toy\"\ngsd = [1.0, 1.0]\ndata = []\n[phases]\n[judge]\nframes = 0\n";
    let config: Config = toml::from_str(text).expect("a config");
    // Exactly the ships are white, and no ship is of 1000 pixels.
    let [seeing, blind] = [6, 1000].map(bright);
    let contender = |name, detector| Contender { name, detector };
    let (parity, scores) = compare(
        &contender("float", &seeing),
        &[contender("blind", &blind), contender("same", &seeing)],
        &pool,
        &config,
        &[Split::Train],
    )
    .expect("compares");
    assert_eq!(
        scores.values().map(|scores| scores.images).sum::<usize>(),
        2
    );
    assert_eq!(parity.names, ["float", "blind", "same"]);
    assert_eq!((parity.sets[0].images, parity.sets[0].with_ships), (2, 2));
    let float = |nth: usize| {
        let change = parity.losses[nth][0].change.as_ref().expect("ships");
        (change.float, change.fall.value)
    };
    assert_eq!(float(1), (1.0, 0.0));
    // Of 270 and 84 pixels, none of which is found: Dice 1 / 271 and 1 / 85.
    let left = (1.0 / 271.0 + 1.0 / 85.0) / 2.0;
    assert!((float(0).1 - (1.0 - left)).abs() < 1e-12);
    let agreement = &parity.agreements[1].1;
    assert_eq!((agreement.instances, agreement.matched), ([0, 2], 0));

    let none = compare(
        &contender("float", &seeing),
        &[contender("same", &seeing)],
        &pool,
        &config,
        &[Split::Tune],
    );
    let error = none.err().expect("no image").to_string();
    assert!(error.contains("[[data]]"), "{error}");
}

#[test]
fn instances_agree_by_hand() {
    let rle = |text: &str| -> Rle { text.parse().expect(text) };
    let with = |gate: f32, tiles: &[f32], found: &[&str]| Outcome {
        tiles: tiles.iter().map(|&score| (score, true)).collect(),
        found: found.iter().map(|text| rle(text)).collect(),
        ..outcome(&[(30.0, 0.8)], 0.8, 0, gate)
    };
    let one = [
        with(0.9, &[0.9, 0.1], &["1 4", "10 4"]),
        with(0.7, &[0.7, 0.5], &["1 10"]),
        with(0.8, &[0.8], &["5 5"]),
    ];
    let other = [
        // 3 of 5 pixels, 2 of 4, and one more.
        with(0.8, &[0.8, 0.4], &["2 4", "10 2", "30 1"]),
        // Two that overlap one: the larger part is the pair.
        with(0.7, &[0.7, 0.49], &["1 4", "5 6"]),
        with(0.75, &[0.75], &["5 5"]),
    ];
    let agreement = Agreement::of(&judged("a", &one), &judged("b", &other), &[0, 1, 2]);
    assert_eq!((agreement.images, agreement.clusters), (3, 3));
    assert_eq!(agreement.same_count, 1);
    assert_eq!(agreement.instances, [4, 6]);
    assert_eq!(agreement.matched, 4);
    let mean = agreement.mean_iou.expect("pairs");
    assert!((mean - (0.6 + 0.5 + 0.6 + 1.0) / 4.0).abs() < 1e-12);
    assert_eq!(agreement.worst_iou, Some(0.5));
    // At 0.5 the second tile of the second image passes in one alone.
    assert_eq!(agreement.same_gate, 2);
    assert!((agreement.widest_gate - 0.1).abs() < 1e-6);

    let nothing = Agreement::of(&judged("a", &one), &judged("b", &other), &[]);
    assert_eq!((nothing.mean_iou, nothing.worst_iou), (None, None));
}

#[test]
fn a_hundred_images_with_ships_are_spread_over_the_sets() {
    let mut all = Vec::new();
    for (set, count) in [("a", 3), ("b", 200), ("c", 60), ("d", 200)] {
        for index in 0..count {
            let ships: &[(f64, f64)] = if index % 2 == 0 { &[(30.0, 0.8)] } else { &[] };
            let mut one = outcome(ships, 0.8, 0, 0.5);
            one.set = set.to_owned();
            all.push(one);
        }
    }
    let chosen = choose(&all, 100);
    assert_eq!(chosen.len(), 100);
    assert!(chosen.is_sorted_by(|a, b| a < b), "each once");
    assert!(chosen.iter().all(|&index| all[index].with_ships));
    let of = |set: &str| {
        chosen
            .iter()
            .filter(|&&index| all[index].set == set)
            .count()
    };
    // Of the first all, of the third its 30, and the rest of the others by halves.
    assert_eq!([of("a"), of("b"), of("c"), of("d")], [2, 34, 30, 34]);
    let gaps = chosen
        .windows(2)
        .filter(|pair| all[pair[0]].set == all[pair[1]].set);
    assert!(
        gaps.into_iter().all(|pair| pair[1] - pair[0] <= 6),
        "evenly"
    );
    assert_eq!(choose(&all[..3], 100), [0, 2]);

    // Two sets of the same ten images: no image comes twice while others are left.
    let mut twice: Vec<Outcome> = (0..20)
        .map(|_| outcome(&[(30.0, 0.8)], 0.8, 0, 0.5))
        .collect();
    for (index, outcome) in twice.iter_mut().enumerate() {
        outcome.set = (index / 10).to_string();
        outcome.cluster = (index % 10).to_string();
    }
    let mut shown: Vec<usize> = choose(&twice, 10).iter().map(|index| index % 10).collect();
    shown.sort_unstable();
    assert_eq!(shown, (0..10).collect::<Vec<_>>());
    assert_eq!(choose(&twice, 15).len(), 15);

    assert!(choose(&[], 100).is_empty());
}

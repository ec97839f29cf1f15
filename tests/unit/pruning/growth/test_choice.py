from sentinel.pruning.growth.choice import choose


def test_the_best_groups_of_a_unit_come_wherever_they_are():
    candidates = {"attention": {0: [1, 3], 2: [0]}}
    gains = {"attention": {0: [0.1, 0.5], 2: [0.3]}}
    assert choose(candidates, gains, number={"attention": 2}, block={"attention": 1}) == {"attention": {0: [3], 2: [0]}}


def test_blocks_are_whole_and_made_of_a_layer_s_best():
    candidates = {"mlp": {0: [4, 5, 6, 7, 9], 1: [0, 1]}}
    gains = {"mlp": {0: [1.0, 9.0, 2.0, 8.0, 0.0], 1: [6.0, 6.0]}}
    chosen = choose(candidates, gains, number={"mlp": 4}, block={"mlp": 2})
    assert chosen == {"mlp": {0: [5, 7], 1: [0, 1]}}


def test_each_unit_has_its_own_number_and_a_short_layer_gives_no_block():
    candidates = {"attention": {1: [0]}, "mlp": {0: [1]}}
    gains = {"attention": {1: [0.0]}, "mlp": {0: [5.0]}}
    assert choose(candidates, gains, number={"attention": 3, "mlp": 2}, block={"attention": 1, "mlp": 2}) == {
        "attention": {1: [0]}
    }

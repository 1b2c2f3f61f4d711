"""Which of the saved models is right most often on the test set?"""

from pathlib import Path

from mill import data, model

features, states = data.windows(data.TEST_SAMPLES, 2002)
for path in ("models/states_final.safetensors", "models/states_final_v2.safetensors"):
    found = model.probabilities(model.load(Path(path)), features).argmax(1)
    print(f"{path}: {(found == states).mean():.3f}")
